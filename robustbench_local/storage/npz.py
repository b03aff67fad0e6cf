"""The per-sample arrays of a row in a file: verified without being held in memory, then read."""

from __future__ import annotations

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import StoreError

Array = npt.NDArray[Any]

MOST_BYTES = 4 * 2**30  # of a row's arrays together, unpacked
_BLOCK = 2**20
_READ = 2**26  # bytes of an array at a time
_SMALL = 2**14  # bytes of an array in its file, up to which it is read at once, and what is alike is kept but once
_FIRST = b"PK\x03\x04"  # which numpy asks for, and zipfile does not
_LOCAL = struct.Struct("<4s2xH18x2H")  # before a member: sign, flags, and how long its name and what follows that are
_ENCRYPTED = 1

# Kinds as numpy has them, and dimensions; of other names any numbers, an image in the first dimension.
_KNOWN = {
    name: (kind, dimensions)
    for kind, dimensions, names in (
        ("b", 1, ("clean", "robust", "robust_8bit", "corrupted")),
        ("b", 2, ("clean_bits", "bits", "bits_8bit")),
        ("iu", 1, ("labels", "ids", "forwards", "backwards", "clean_predicted", "predicted", "fingerprint")),
        ("f", 1, ("distance", "margin", "success", "won", "radius")),
        ("f", 2, ("clean_scores", "scores")),
        ("f", 4, ("x_adv",)),
    )
    for name in names
}


def checksums(archive: BinaryIO) -> dict[str, str]:
    """The CRC-32 of each array, as the archive's own directory lists them: nothing is decompressed."""
    with zipfile.ZipFile(archive) as file:
        return {entry.filename.removesuffix(".npy"): f"{entry.CRC:08x}" for entry in file.infolist()}


def verify(archive: BinaryIO, sums: Mapping[str, str], n: int, keep: dict[str, Array] | None = None) -> str | None:
    """Why these are not the arrays that a row of n images lists, or None. StoreError where they cannot be read at all.

    All of it is decompressed once, piece by piece. keep: where the small ones go, which nobody may write to.
    """
    try:
        if archive.read(4) != _FIRST:
            raise StoreError("it does not begin as an archive does")
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                return f"its arrays unpack to more than {MOST_BYTES / 2**30:.0f} GiB"
            for entry in entries:
                head, values = _content(file, entry)
                if fault := _fault(entry, head, n):
                    return f"{entry.filename!r:.60} in it {fault}"
                if keep is not None and values is not None:
                    keep[entry.filename.removesuffix(".npy")] = values
            found = {entry.filename.removesuffix(".npy"): f"{entry.CRC:08x}" for entry in entries}
    except Exception as error:  # zipfile, zlib and numpy have a dozen kinds for it
        raise StoreError(f"it is damaged ({error})") from error
    return None if found == dict(sums) and len(entries) == len(sums) else "its arrays are of another run"


def load(archive: BinaryIO, names: tuple[str, ...] = ()) -> dict[str, Array]:
    """The arrays, or those of the names that are there. StoreError where they are damaged."""
    try:
        with zipfile.ZipFile(archive) as file:
            found = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
            return {name: _array(file, entry) for name, entry in found.items() if not names or name in names}
    except Exception as error:  # as above
        raise StoreError(f"it is damaged ({error})") from error


def load_rows(archive: BinaryIO, name: str, rows: Sequence[int]) -> Array:
    """Of one array (N, ...) these rows (n, ...), read without the others in memory. StoreError where it is damaged."""
    try:
        with zipfile.ZipFile(archive) as file, file.open(f"{name}.npy") as stream:
            head = _head(stream.read(_BLOCK))
            found = np.empty((len(rows), *head.shape[1:]), head.dtype)
            each = head.dtype.itemsize * math.prod(head.shape[1:])
            for place in sorted(range(len(rows)), key=lambda place: rows[place]):
                stream.seek(head.size + rows[place] * each)
                found[place] = np.frombuffer(stream.read(each), head.dtype).reshape(head.shape[1:])
            return found
    except Exception as error:  # as above
        raise StoreError(f"it is damaged ({error})") from error


def blocks(archive: BinaryIO, name: str) -> Iterator[Array]:
    """One array (N, ...), some rows at a time from first to last. StoreError where it is damaged."""
    try:
        with zipfile.ZipFile(archive) as file, file.open(f"{name}.npy") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            each = dtype.itemsize * math.prod(shape[1:])
            size = max(1, _READ // each)
            for start in range(0, shape[0], size):
                count = min(size, shape[0] - start)
                yield np.frombuffer(stream.read(count * each), dtype).reshape(count, *shape[1:])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise StoreError(f"it is damaged ({error})") from error


@dataclass(frozen=True)
class _Head:
    """What stands before the values of an array, in so many bytes."""

    version: tuple[int, int]
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    size: int


def _head(begin: bytes) -> _Head:
    """Of an array that begins so."""
    return _parsed(begin[: 10 + int.from_bytes(begin[8:10], "little")])


@functools.lru_cache(maxsize=256)  # rows of a grid have the same few, and to parse one takes longer than its values
def _parsed(head: bytes) -> _Head:
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        return _Head(version, (), False, np.dtype(np.uint8), 0)
    return _Head(version, *np.lib.format.read_array_header_1_0(stream), size=len(head))


def _array(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    if _is_small(entry) and (values := _content(file, entry)[1]) is not None:
        return values.copy("K")
    with file.open(entry) as stream:
        block = stream.read(_BLOCK)
        head = _head(block)
        values = np.empty(math.prod(head.shape), head.dtype)
        flat, filled, block = values.view(np.uint8), 0, block[head.size :]
        while block:
            flat[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
            filled += len(block)
            block = stream.read(_BLOCK)
    if filled != len(flat):
        raise EOFError(f"{entry.filename!r:.60} has {filled} bytes of {len(flat)}")
    return values.reshape(head.shape, order="F" if head.fortran else "C")


def _content(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[_Head, Array | None]:
    """The head of an array, read to its end, where its checksum is compared; and a small one itself."""
    if _is_small(entry):
        return _unpacked(_packed(file, entry), entry.compress_type, entry.file_size, entry.CRC)
    with file.open(entry) as stream:
        head = _head(stream.read(_BLOCK))
        while stream.read(_BLOCK):
            pass
    return head, None


def _is_small(entry: zipfile.ZipInfo) -> bool:
    return max(entry.compress_size, entry.file_size) <= _SMALL


def _packed(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member as it is in the archive. To open it takes zipfile ten times as long as to unpack a small one."""
    assert file.fp is not None
    file.fp.seek(entry.header_offset)
    begin = file.fp.read(_LOCAL.size)
    sign, flags, name, extra = _LOCAL.unpack(begin)
    about = file.fp.read(name + extra)
    if sign != _FIRST or flags & _ENCRYPTED or about[:name] != entry.orig_filename.encode():
        raise zipfile.BadZipFile(f"{entry.filename!r:.60} is not where its directory says")
    packed = file.fp.read(entry.compress_size)
    if len(packed) != entry.compress_size:
        raise EOFError(f"{entry.filename!r:.60} is cut short")
    return packed


@functools.lru_cache(maxsize=256)  # labels, ids and more are the same in all rows of a model, or of a grid
def _unpacked(packed: bytes, method: int, size: int, checksum: int) -> tuple[_Head, Array | None]:
    """The head of an array of so many bytes, and the array, unless its head belies it; read-only, as it is shared."""
    content = packed
    if method == zipfile.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        content = inflate.decompress(packed, size + 1)
    elif method != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"method {method} of compression")
    if len(content) != size or zlib.crc32(content) != checksum:
        raise zipfile.BadZipFile("its checksum is another")
    head = _head(content)
    try:
        values = np.frombuffer(content, head.dtype, offset=head.size)
        return head, values.reshape(head.shape, order="F" if head.fortran else "C")
    except ValueError:
        return head, None


def _fault(entry: zipfile.ZipInfo, head: _Head, n: int) -> str | None:
    """What tells an array from those that a row of n images has, by its name."""
    if head.version != (1, 0):
        return f"has version {head.version} of its format, not (1, 0)"
    shape, dtype = head.shape, head.dtype
    kind, dimensions = _KNOWN.get(entry.filename.removesuffix(".npy"), ("biuf", len(shape)))
    if dtype.kind not in kind or len(shape) != dimensions or not shape or shape[0] != n:
        return f"has {dtype} of shape {shape}, for {n} images"
    size = head.size + dtype.itemsize * math.prod(shape)
    return None if size == entry.file_size else f"has {entry.file_size} bytes, not {size}"
