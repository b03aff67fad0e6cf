"""Many rows and their audits in one archive, FOLDER/rows.tar.xz, which keeps but once what they have in common."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from robustbench_local.core.errors import StoreError
from robustbench_local.core.escaping import shown
from robustbench_local.storage.files import Stamp, stamp

NAME = "rows.tar.xz"
ROWS, AUDITS = "rows", "audits"
PICTURES = "pictures"  # which no archive holds: they do not shrink
MOST_BYTES = 512 * 2**20  # of an archive, unpacked: it is held in memory

_MEMBER = re.compile(rf"({AUDITS}/[\w-][\w.-]*\.json|[\w-][\w.-]*\.(json|npz))")
_MEMORY = 256 * 2**20  # what unpacking may take beside: preset 9 takes 65 MiB
_BLOCK = 2**16


class Packed:
    """The files of an archive by name, none where there is no archive; read when asked for, and again once it changed.

    Rows have bare names, audits are in audits/. A damaged archive is read as far as it goes; warnings name it,
    and what in it is no file of a row or an audit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: Stamp | None = None
        self._files: dict[str, bytes] = {}
        self.damaged = False

    @property
    def files(self) -> dict[str, bytes]:
        try:
            now = stamp(self.path)
        except OSError as error:
            warnings.warn(f"{self.path.absolute()} is ignored: {error.strerror}", stacklevel=2)
            return {}
        if now != self.seen:
            self._files, faults = ({}, []) if now is None else _read(self.path)
            self.seen, self.damaged = now, bool(faults)
            for fault in faults:
                warnings.warn(shown(f"{self.path.absolute()} {fault}", "terminal"), stacklevel=2)
        return self._files


def _read(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files, and what is wrong with the archive."""
    files: dict[str, bytes] = {}
    strange: list[str] = []
    faults: list[str] = []
    try:
        with path.open("rb") as packed:
            for name, content in _members(_Unpacked(packed)):
                if content is None or name in files:
                    strange.append(f"{name!r:.60}")
                else:
                    files[name] = content
    except (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError, StoreError) as error:
        faults.append(f"is damaged ({error}): {len(files)} files in it can be read, and the others count as missing")
    if strange:
        some = ", ".join(strange[:4]) + (f" and {len(strange) - 4} more" if len(strange) > 4 else "")
        faults.append(f"holds what is neither a row nor an audit, or is there twice, and is ignored: {some}")
    return files, faults


def _members(stream: _Unpacked) -> Iterator[tuple[str, bytes | None]]:
    """Name and content; None for folders, links, devices and names that `pack` gives to nothing."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            plain = member.isreg() and not member.issparse() and _MEMBER.fullmatch(member.name)
            file = archive.extractfile(member) if plain else None
            yield member.name, None if file is None else file.read()
        assert archive.fileobj is not None
        while rest := archive.fileobj.read(_BLOCK):  # to its end, where its checksum is compared
            if any(rest):
                raise EOFError("something in it is no member")


class _Unpacked(io.RawIOBase):
    """The bytes that an .xz file holds. StoreError after more than MOST_BYTES."""

    def __init__(self, packed: io.BufferedIOBase) -> None:
        self._packed = packed
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        block = b""
        while not block and not self._xz.eof:
            more = self._packed.read(_BLOCK) if self._xz.needs_input else b""
            if self._xz.needs_input and not more:
                raise EOFError("it was cut short")
            block = self._xz.decompress(more, len(buffer))
        if self._xz.eof and (self._xz.unused_data or self._packed.read(1)):
            raise EOFError("more follows its end")
        self._count += len(block)
        if self._count > MOST_BYTES:
            raise StoreError(f"it unpacks to more than {MOST_BYTES / 2**20:.0f} MiB")
        buffer[: len(block)] = block
        return len(block)
