"""What is known of images by reading each once, in blocks: their digest, and how bright they are."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Pixels
from robustbench_local.data.image_store import read_note, write_note
from robustbench_local.data.picture_cache import PictureCache
from robustbench_local.storage.cache_folder import refusal_explained

BLOCK_BYTES = 1 << 24  # of images read at a time, so that a large set is never copied whole
_DARK = 32  # of 255: a brightest pixel below it is more likely a mistake of range than a set of photographs


@dataclass(frozen=True)
class Summary:
    """digest: sha256 over the pixels, then the labels, in C order, little-endian. brightest: the highest, of 255."""

    digest: str
    brightest: int

    @classmethod
    def of(cls, images: Pixels, labels: npt.NDArray[np.int64]) -> Summary:
        digest, brightest = hashlib.sha256(), 0
        step = max(1, BLOCK_BYTES * len(images) // max(1, images.nbytes))
        for start in range(0, len(images), step):
            block = np.ascontiguousarray(images[start : start + step])
            digest.update(block.data)
            brightest = max(brightest, int(block.max(initial=0)))
        digest.update(labels.data)
        return cls(digest.hexdigest(), brightest)

    @classmethod
    def kept(
        cls, cache: PictureCache, rows: npt.NDArray[np.intp], images: Pixels, labels: npt.NDArray[np.int64]
    ) -> Summary:
        """The same of rows of a cache, which keeps it beside them."""
        name = f"summary-{hashlib.sha256(rows.astype('<i8').tobytes() + labels.tobytes()).hexdigest()[:24]}"
        if note := read_note(cache.folder, name):
            return cls(note["digest"], note["brightest"])
        found = cls.of(images, labels)
        with refusal_explained():
            write_note(cache.folder, name, asdict(found))
        return found

    def check_levels(self, name: str, count: int) -> None:
        """DataError where a user's pixels are all 0 or 1 of 255, and a warning where none is bright."""
        if self.brightest == 1:
            raise DataError(
                f"{name}: the 8-bit pixels of all {count} images are 0 or 1, which would be 0 and 1/255:"
                " multiply them by 255 if 1 stands for white, or give them as floats in [0, 1]"
            )
        if 0 < self.brightest < _DARK:
            warnings.warn(
                f"{name}: the brightest pixel of all {count} images is {self.brightest} of 255: multiply the pixels"
                " if they were scaled to another range",
                stacklevel=5,
            )
