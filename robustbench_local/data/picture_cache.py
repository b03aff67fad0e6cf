"""Pictures decoded once, by several workers, into the cache, and read from there without being held in memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes
from robustbench_local.data.encoded import Encoded, check_size, has_any_colour
from robustbench_local.data.image_store import ImageStore, read_note, write_note
from robustbench_local.data.pictures import Content, read_picture
from robustbench_local.data.progress import counting_bar, say
from robustbench_local.data.transform import Transform
from robustbench_local.storage.cache_folder import cache_folder, refusal_explained

_MOST_WORKERS = 8
_UNUSED_AFTER_SECONDS = 7 * 24 * 3600.0
_DECODERS = ("jpg", "libjpeg_turbo", "zlib", "webp", "libtiff")


class PictureCache:
    """uint8 (N, C, H, W) of encoded pictures: a slice, or indices (n,), of what is decoded when it is first asked for.

    One channel if all are grey, else RGB. Whatever this process reads for the first time is checked; what is damaged is
    decoded again. DataError names a picture that is unreadable or of another size, and says where the pictures changed
    since this was made, or the cache cannot be written.
    """

    def __init__(self, pictures: Encoded, transform: Transform | None) -> None:
        self._pictures, self._transform = pictures, transform
        self.key = self._now()
        place = hashlib.sha256(f"{pictures.place}\n{transform}".encode(errors="surrogateescape")).hexdigest()[:12]
        self.folder = cache_folder() / "pictures" / f"{place}-{self.key}"
        self._sound = np.zeros(len(pictures), bool)  # those that this process found right
        _sweep(self.folder, f"{place}-*")

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def nbytes(self) -> int:
        """Of all images."""
        return len(self) * self._store.size

    def prepare(self, rows: npt.NDArray[np.intp]) -> None:
        """Decode those that are not there yet."""
        self._make(rows[~self._store.there()[rows]])

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Bytes:
        index = np.arange(len(self))[rows]
        images = self._store.read(index)
        wrong = self._unsound(index, images)
        if len(wrong):
            damaged = int(self._store.there()[wrong].sum())
            if damaged:
                say(f"{self._pictures.place}: {damaged} images are damaged in {self.folder}, and are decoded again")
            self._make(wrong)
            images = self._store.read(index)
            if len(self._unsound(index, images)):
                raise DataError(f"{self.folder} does not keep what is written to it: is its disk sound?")
        return images

    @cached_property
    def _store(self) -> ImageStore:
        note = read_note(self.folder, "shape")
        if note is None:
            name, content = next(self._pictures.read([0]))
            first = read_picture(content, self._transform, name=name)
            channels = 3 if has_any_colour(self._pictures) else 1
            note = {"shape": [channels, *first.shape[1:]], "of": self._pictures.place}
            with refusal_explained():
                write_note(self.folder, "shape", note)
        channels, height, width = note["shape"]
        return ImageStore(self.folder, self.key, len(self), (channels, height, width))

    def _now(self) -> str:
        """What names the pictures as they are now, and how they are decoded."""
        found = hashlib.sha256(f"{self._transform} {PIL.__version__}".encode())
        for name in _DECODERS:
            found.update(f" {name} {features.version(name)}".encode())
        try:
            for stamp in self._pictures.stamps():
                found.update(stamp)
        except OSError as error:
            raise DataError(f"{self._pictures.place} cannot be read: {error}") from error
        return found.hexdigest()[:24]

    def _unsound(self, index: npt.NDArray[np.intp], images: Bytes) -> npt.NDArray[np.intp]:
        """Those of the rows whose images are not there, or not as they were written."""
        new = np.flatnonzero(~self._sound[index])
        if not len(new):
            return new
        right = self._store.sound(index[new], images[new])
        self._sound[index[new[right]]] = True
        return np.unique(index[new[~right]])

    def _make(self, rows: npt.NDArray[np.intp]) -> None:
        """Decode these and keep them, while the pictures are what they were."""
        if not len(rows):
            return
        self._check_unchanged()
        with refusal_explained():
            self._store.make_room(len(rows))
            label = f"{self._pictures.place}: decoding {len(rows):,} pictures into {self.folder}"
            with counting_bar(label, len(rows)) as counted:
                self._store.write(counted(self._decoded(rows.tolist())))
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if self._now() != self.key:
            raise DataError(
                f"{self._pictures.place} changed since it was opened: run again, when nobody writes there any more"
            )

    def _decoded(self, rows: Sequence[int]) -> Iterator[tuple[int, Bytes]]:
        """Images in the order of the rows, by threads: Pillow decodes and scales without Python's lock."""
        workers = min(_MOST_WORKERS, _usable_cpus())
        ahead: deque[tuple[int, Future[Bytes]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for row, (name, content) in zip(rows, self._pictures.read(rows), strict=True):
                ahead.append((row, pool.submit(self._decode, name, content)))
                if len(ahead) > 2 * workers:
                    first, image = ahead.popleft()
                    yield first, image.result()
            for row, image in ahead:
                yield row, image.result()

    def _decode(self, name: str, content: Content) -> Bytes:
        image, shape = read_picture(content, self._transform, name=name), self._store.shape
        check_size(name, image, shape, self._transform)
        return np.ascontiguousarray(np.broadcast_to(image, shape))


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sweep(own: Path, pattern: str) -> None:
    """Remove what earlier states of the same pictures left, where nobody opened it for a week."""
    with suppress(OSError):
        os.utime(own)
    for left in own.parent.glob(pattern):
        with suppress(OSError):  # another process sweeps as well
            if left != own and time.time() - left.stat().st_mtime > _UNUSED_AFTER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
