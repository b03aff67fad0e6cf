"""The first images of each data set, inside the package: lossless WebP sprites, labels as .npy."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from robustbench_local.data.catalogue import Arrays, Bytes, known

FOLDER = Path(__file__).parent / "bundled"
BUNDLED_COUNTS = {"test": 1000, "train": 2000}
_COLUMNS = 40  # images side by side in a sprite


@functools.cache
def read_bundled(name: str) -> Arrays:
    """The bundled arrays of "mnist" or "cifar10", read-only, as `DataSet.verify` shapes them."""
    arrays = {}
    for split in BUNDLED_COUNTS:
        arrays[f"{split}_images"] = _read_sprite(FOLDER / f"{name}_{split}.webp", known(name).shape)
        arrays[f"{split}_labels"] = np.load(FOLDER / f"{name}_{split}_labels.npy", allow_pickle=False)
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def write_bundled(name: str, arrays: Arrays, folder: Path = FOLDER) -> None:
    """Write the first images and labels of each split into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in BUNDLED_COUNTS.items():
        _write_sprite(folder / f"{name}_{split}.webp", arrays[f"{split}_images"][:count])
        np.save(folder / f"{name}_{split}_labels.npy", arrays[f"{split}_labels"][:count])


def _write_sprite(path: Path, images: Bytes) -> None:
    count, channels, height, width = images.shape
    tiles = images.reshape(count // _COLUMNS, _COLUMNS, channels, height, width).transpose(0, 3, 1, 4, 2)
    rows = tiles.reshape(count // _COLUMNS * height, _COLUMNS * width, channels)
    rgb = np.ascontiguousarray(np.broadcast_to(rows, (*rows.shape[:2], 3)))
    Image.fromarray(rgb).save(path, lossless=True, quality=100, method=6)


def _read_sprite(path: Path, shape: tuple[int, int, int]) -> Bytes:
    channels, height, width = shape
    with Image.open(path) as image:
        rows = np.asarray(image.convert("RGB"))[..., :channels]
    tiles = rows.reshape(-1, height, _COLUMNS, width, channels).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, *shape))
