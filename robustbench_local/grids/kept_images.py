"""The adversarial images of a cell that are saved: on disk as they are made, since all of them may not fit memory."""

from __future__ import annotations

import math
import tempfile

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core.errors import ConfigError
from robustbench_local.core.source import Source
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.data.images import Images
from robustbench_local.storage.npz import MOST_BYTES, Array

_BLOCK = 2**24  # pixels turned into floats at a time


class KeptImages:
    """A temporary file that is gone when nobody holds its array; in the folder that TMPDIR names."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.array: Array = np.empty(0, np.float32)

    def __call__(self, rows: slice, x_adv: Tensor) -> None:
        self.put(rows, x_adv.cpu().contiguous().numpy())

    def put(self, rows: slice, part: Array) -> None:
        """These rows of the array, (n, C, H, W)."""
        if not self.array.size:
            with tempfile.TemporaryFile() as file:
                self.array = np.memmap(file, part.dtype, "w+", shape=(self._count, *part.shape[1:]))
        self.array[rows] = part


def check_room(images: Images, precision: str) -> None:
    """ConfigError where the images of a row would be more than a row's arrays may be."""
    shape = tuple(images.pixels.shape)
    size = math.prod(shape) * (8 if precision == "float64" else 4) / 2**30
    if size > MOST_BYTES / 2**30:
        raise ConfigError(
            f"save=x_adv: {shape[0]} images of {shape[1:]} are {size:.1f} GiB, and a row holds"
            f" {MOST_BYTES / 2**30:.0f}: give n, or another n to the attacks whose images are wanted"
        )


def fingerprints(images: Source, rows: slice | None = None) -> Array:
    """(n,) int64: what the images that were attacked, or start:stop of them, are known by."""
    first, last = (0, len(images)) if rows is None else (rows.start, rows.stop)
    step = max(1, _BLOCK // images[:1].numel())
    known = [fingerprint(images[start : min(start + step, last)]) for start in range(first, last, step)]
    return np.asarray(torch.cat(known).cpu())
