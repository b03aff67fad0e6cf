"""Loose rows and audits into the archive of their folder."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np

from robustbench_local.core.errors import StoreError
from robustbench_local.storage import npz
from robustbench_local.storage.archive import AUDITS, MOST_BYTES, NAME, ROWS, Packed
from robustbench_local.storage.files import Stamp, locked, set_aside, stamp, whole_file
from robustbench_local.storage.store import Store


def pack(folder: Path) -> tuple[int, int]:
    """Move the files of FOLDER/rows and FOLDER/audits into its archive -> how many are in it, and its bytes.

    Safe to kill, and while a grid writes there or others pack: what was written meanwhile stays loose. What is damaged
    is set aside, a damaged archive too, and named. Arrays go in uncompressed, which is what lets the archive see that
    they are alike. StoreError where there is nothing to pack, or more than an archive may hold.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise StoreError(f"there are no rows in {folder.absolute()}")
    with locked(folder):
        store = Store(folder)
        store.rows(), store.audits()  # what is damaged goes out of the way
        taken: dict[Path, Stamp] = {}
        archive = Packed(path)
        files = dict(archive.files)
        for name, file in _loose(folder).items():
            if (found := _taken(file)) is not None:
                files[name], taken[file] = found
        if not files:
            raise StoreError(f"there are no rows in {folder.absolute()}")
        if archive.damaged:
            with whole_file(path.with_name(f"{NAME}.damaged")) as aside:
                aside.write(path.read_bytes())
        _write(path, files)
        for file, seen in taken.items():
            _remove(file, seen)
        return len(files), path.stat().st_size


def _loose(folder: Path) -> dict[str, Path]:
    """{name in an archive: file}."""
    rows = [file for kind in ("json", "npz") for file in (folder / ROWS).glob(f"[!.]*.{kind}")]
    audits = (folder / AUDITS).glob("[!.]*.json")
    return {file.name: file for file in rows} | {f"{AUDITS}/{file.name}": file for file in audits}


def _taken(file: Path) -> tuple[bytes, Stamp] | None:
    """The content to pack, and of which file it is; None where there is none any more, or a damaged one."""
    seen = None
    try:
        if (seen := stamp(file)) is None:
            return None
        if file.suffix != ".npz":
            return file.read_bytes(), seen
        with file.open("rb") as compressed:
            arrays = npz.load(compressed)
    except FileNotFoundError:
        return None
    except (OSError, StoreError) as error:
        aside = set_aside(file, seen) if seen else None
        warnings.warn(
            f"{file.absolute()} is not packed: {error}" + (f"; it is {aside.name} now" if aside else ""), stacklevel=3
        )
        return None
    bare = io.BytesIO()
    np.savez(bare, **arrays)  # type: ignore[arg-type]  # taken for allow_pickle
    return bare.getvalue(), seen


def _write(path: Path, files: dict[str, bytes]) -> None:
    size = sum(512 + -(-len(content) // 512) * 512 for content in files.values()) + tarfile.RECORDSIZE
    if size > MOST_BYTES:
        raise StoreError(
            f"{path.parent.absolute()} has {size / 2**20:.0f} MiB of rows and arrays, and an archive holds at most"
            f" {MOST_BYTES / 2**20:.0f}: images kept by save=x_adv do not shrink, so leave them loose"
        )
    with whole_file(path) as target, tarfile.open(fileobj=target, mode="w:xz", preset=9) as archive:
        for name in sorted(files, key=lambda name: (Path(name).suffix, name)):  # like beside like
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))


def _remove(file: Path, seen: Stamp) -> None:
    """Remove a packed file, unless another was written in its place since: renamed first, so that none slips in."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        os.replace(file, aside)
    except FileNotFoundError:
        return
    if stamp(aside) == seen or file.exists():
        aside.unlink()
    else:
        os.replace(aside, file)
