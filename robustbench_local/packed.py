"""Many rows and their audits in one archive, FOLDER/rows.tar.xz, which keeps but once what they have in common."""

from __future__ import annotations

import io
import lzma
import tarfile
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbench_local.errors import StoreError
from robustbench_local.files import whole_file

NAME = "rows.tar.xz"
ROWS, AUDITS = "rows", "audits"


class Packed:
    """The files of an archive by name, none where there is no archive; read once, when first asked for.

    Rows have bare names, audits are in audits/.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def files(self) -> dict[str, bytes]:
        try:
            with tarfile.open(self.path, "r:xz") as archive:
                return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
            raise StoreError(f"cannot read {self.path.absolute()}: {error}; delete it to have it done again") from error


def pack(folder: Path) -> tuple[int, int]:
    """Move the files of FOLDER/rows and FOLDER/audits into its archive -> how many are in it, and its bytes.

    Safe to kill, but not for a folder that a grid is writing to: what it writes meanwhile may have to be done again.

    Arrays go in uncompressed, which is what lets the archive see that they are alike.
    """
    path = folder / NAME
    loose = {file.name: file for file in (folder / ROWS).glob("[!.]*")}
    loose |= {f"{AUDITS}/{file.name}": file for file in (folder / AUDITS).glob("[!.]*")}
    files = Packed(path).files | {name: _bare(file) for name, file in loose.items()}
    if not files:
        raise StoreError(f"there are no rows in {folder.absolute()}")
    with whole_file(path) as target, tarfile.open(fileobj=target, mode="w:xz", preset=9) as archive:
        for name in sorted(files, key=lambda name: (Path(name).suffix, name)):  # like beside like
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    for file in loose.values():
        file.unlink()
    return len(files), path.stat().st_size


def _bare(file: Path) -> bytes:
    if file.suffix != ".npz":
        return file.read_bytes()
    bare = io.BytesIO()
    with np.load(file, allow_pickle=False) as arrays:
        np.savez(bare, **arrays)
    return bare.getvalue()
