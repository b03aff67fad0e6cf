"""numpy's own files, read with distrust: sizes are checked before memory is taken, and nothing in them is executed."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError

T = TypeVar("T")
_KINDS = "buifcUS"  # numbers and text; no Python objects, records or dates
_BOMB = 1 << 28, 100  # bytes of an array, and how many times as many as in the file, that no images come to
_MOST_UNPACKED = 1 << 32  # bytes of a compressed array, all of which must be in memory
_MAPPED_FROM = 1 << 26  # bytes of an array from which it is mapped, where it is not compressed
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Header:
    """What an .npy file announces: C or Fortran order, shape and type, and where its content starts."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path) -> npt.NDArray[Any]:
    """The memory-mapped array of an .npy file. DataError where it is damaged or holds other things than numbers."""
    with _regular(path).open("rb") as file:
        header = _guarded(path, lambda: _header(file))
        size = file.seek(0, io.SEEK_END)
    if size != header.size:
        raise DataError(f"{path} has {size} bytes, not the {header.size} of the {header.shape} it announces: damaged")
    return _guarded(path, lambda: np.load(path, mmap_mode="r" if math.prod(header.shape) else None, allow_pickle=False))


class Npz:
    """A .npz file, closed again after each reading. DataError where it is damaged, or its content too large."""

    def __init__(self, path: Path) -> None:
        self.path = _regular(path)
        with self.path.open("rb") as file:
            start = file.read(6)
        if start == b"\x93NUMPY":
            raise DataError(f"{path} is an .npy file by its content: name it .npy, its labels beside it")
        self.names = [name.removesuffix(".npy") for name in _guarded(path, self._names)]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The array of that name: in memory, or a memory map of a large one that is not compressed."""
        return _guarded(self.path, lambda: self._read(name))

    def _names(self) -> list[str]:
        with zipfile.ZipFile(self.path) as archive:
            return archive.namelist()

    def _read(self, name: str) -> npt.NDArray[Any]:
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as file:
                header = _header(file)
                if info.file_size != header.size:
                    raise DataError(f"{name} has {info.file_size} bytes, not the {header.size} of its {header.shape}")
                if info.compress_type == zipfile.ZIP_STORED and header.size >= _MAPPED_FROM:
                    while file.read(_CHUNK):  # to the end, where its checksum is compared
                        pass
                    return self._mapped(info, header)
                if header.size > max(_BOMB[0], _BOMB[1] * info.compress_size):
                    raise DataError(f"{name} would take {header.size} bytes, out of {info.compress_size} in the file")
                if header.size > _MOST_UNPACKED:
                    raise DataError(
                        f"{name} is compressed and would take {header.size:,} bytes of memory: save it by np.savez,"
                        " which does not compress, and it is read as it is needed"
                    )
                content = file.read()  # as above
        array = np.frombuffer(content, header.dtype)
        return array.reshape(header.shape, order="F" if header.fortran else "C")

    def _mapped(self, info: zipfile.ZipInfo, header: Header) -> npt.NDArray[Any]:
        with self.path.open("rb") as file:
            file.seek(info.header_offset + 26)  # of the member's own header: the lengths of its name and extra field
            name, extra = struct.unpack("<HH", file.read(4))
        offset = info.header_offset + 30 + name + extra + header.offset
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.memmap(self.path, header.dtype, "r", offset, header.shape, order)


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # which numpy writes for arrays of numbers; others may announce gigabytes of header
        raise DataError(f"it has format version {version}, where numbers have (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in _KINDS:
        raise DataError(f"it holds {dtype} and not numbers: nothing pickled is read (allow_pickle=False)")
    if min(shape, default=0) < 0:
        raise DataError(f"its shape {shape} is below 0")
    return Header(shape, fortran, dtype, file.tell())


def _regular(path: Path) -> Path:
    """The path of a file; DataError where there is none, or a folder, pipe or device, which might never end."""
    try:
        if path.is_file():
            return path
        what = "it is no regular file" if path.exists() else ""
    except OSError as error:
        what = str(error)
    raise DataError(f"{path} cannot be read: {what}" if what else f"there is no file {path}")


def _guarded(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except Exception as error:  # zipfile, zlib, lzma and numpy die of a dozen things that a damaged file may hold
        raise DataError(f"{path} cannot be read as arrays of numbers: {error or type(error).__name__}") from error
