"""Images in a folder of the cache, which may be damaged at any time without harm.

`pixels` holds N images one after the other, `checks` 8 bytes for each: 0 where it was not written yet, else a digest of
its pixels. They are read, and not mapped, so that memory stays free and a file cut short is no fatal signal. Writers at
once write the same. Notes are small JSON files beside them.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import StoreError
from robustbench_local.data.catalogue import Bytes
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.sealing import SCHEMA, Record, sealed, unsealed, written

_CHECK_BYTES = 8
_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ImageStore:
    """count images uint8 (C, H, W) of that shape in a folder; key: what they are made from."""

    folder: Path
    key: str
    count: int
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return math.prod(self.shape)

    def read(self, rows: _Rows) -> Bytes:
        """uint8 (n, C, H, W), right or not; 0 where there is nothing."""
        images = np.zeros((len(rows), *self.shape), np.uint8)
        if len(rows) and (np.diff(rows) == 1).all():
            _read(self._pixels, int(rows[0]) * self.size, images)
        else:
            for image, row in zip(images, rows.tolist(), strict=True):
                _read(self._pixels, row * self.size, image)
        return images

    def there(self) -> npt.NDArray[np.bool_]:
        """(N,) which were written, rightly or not."""
        return np.asarray(self._recorded().any(1))

    def sound(self, rows: _Rows, images: Bytes) -> npt.NDArray[np.bool_]:
        """(n,) which of the images that were read are as they were written."""
        recorded = self._recorded()
        pairs = zip(rows.tolist(), images, strict=True)
        return np.array([self._check(row, image) == recorded[row].tobytes() for row, image in pairs], bool)

    def write(self, images: Iterable[tuple[int, Bytes]]) -> None:
        """Keep (row, image) after (row, image): a kill loses the last. OSError where the disk is full."""
        with open(self._pixels, "r+b") as pixels, open(self._checks, "r+b") as checks:
            for row, image in images:
                for file, place, content in (
                    (pixels, row * self.size, image.tobytes()),
                    (checks, row * _CHECK_BYTES, self._check(row, image)),
                ):
                    file.seek(place)
                    file.write(content)
                    file.flush()

    def make_room(self, images: int) -> None:
        """Both files in their full size, which on most disks take the space of what is written. OSError where so many
        images do not fit.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = images * self.size, shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(f"{images:,} images take {needed:,} bytes, and {free:,} are free")
        for path, size in ((self._pixels, self.size), (self._checks, _CHECK_BYTES)):
            with open(path, "ab") as file:
                if file.tell() != self.count * size:
                    file.truncate(self.count * size)

    @property
    def _pixels(self) -> Path:
        return self.folder / "pixels"

    @property
    def _checks(self) -> Path:
        return self.folder / "checks"

    def _recorded(self) -> npt.NDArray[np.uint8]:
        found = np.zeros((self.count, _CHECK_BYTES), np.uint8)
        _read(self._checks, 0, found)
        return found

    def _check(self, row: int, image: Bytes) -> bytes:
        found = hashlib.blake2b(f"{self.key} {row} {image.shape}".encode(), digest_size=_CHECK_BYTES)
        found.update(np.ascontiguousarray(image).data)
        return found.digest()


def read_note(folder: Path, name: str) -> Record | None:
    """What `write_note` kept there by that name; None where there is nothing, or something damaged."""
    with suppress(OSError, StoreError):
        found = unsealed((folder / f"{name}.json").read_bytes())
        if found.get("note") == f"{folder.name}/{name}":
            return found
    return None


def write_note(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """StoreError as in `whole_file`."""
    with whole_file(folder / f"{name}.json") as file:
        file.write(written(sealed({"schema": SCHEMA, "note": f"{folder.name}/{name}", **record})))


def _read(path: Path, place: int, into: npt.NDArray[np.uint8]) -> None:
    """As many bytes as there are."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(place)
        file.readinto(into.reshape(-1).data)
