"""The first images of each data set, inside the package: lossless WebP sprites, labels as .npy."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Arrays, Bytes, known

FOLDER = Path(__file__).parent / "bundled"
BUNDLED_COUNTS = {"test": 1000, "train": 2000}
DIGESTS = {  # sha256 of the arrays
    "mnist": {
        "test_images": "f8f3c5a608a9f7d4bd5e9d69b90c53932b8b99371d9db26121b42f62f3abcd56",
        "test_labels": "d14ba0a1a3818edefa35518ed001ece84b7ac0eabe9394551c73928493175d3f",
        "train_images": "4d1e2862007bab5908d814e74806c6c8f7c4a4f32b5875d195406d4d1dbe4946",
        "train_labels": "e1be9271eae282fe1479074d79e9b9523ada775ebb01e19299727123e3acca5e",
    },
    "cifar10": {
        "test_images": "f167149948fc8fe0b9a76ba86421e987817f98b63761ba9415c5d42664d51f03",
        "test_labels": "636a087e604331a0b9dafc94b6e9ade0c9cec72c4400d12473ccdb3e264474c1",
        "train_images": "8ca13b4bad29e1e1f16d4141feeeb34ba22d919470415cefd75b9118d23160e7",
        "train_labels": "be1c28c816d430be791ef07694742adff327158d0ef082fb990dfadc30a427f0",
    },
}
_COLUMNS = 40  # images side by side in a sprite


@functools.cache
def read_bundled(name: str) -> Arrays:
    """The bundled arrays of "mnist" or "cifar10", read-only, as `DataSet.verify` shapes them.

    DataError where a file of the package is damaged.
    """
    arrays = {}
    for split in BUNDLED_COUNTS:
        for what, file in (("images", f"{name}_{split}.webp"), ("labels", f"{name}_{split}_labels.npy")):
            try:
                if what == "images":
                    array = _read_sprite(FOLDER / file, known(name).shape)
                else:
                    array = np.load(FOLDER / file, allow_pickle=False)
            except Exception as error:  # a damaged file may be the death of numpy and Pillow in many ways
                raise DataError(f"{FOLDER / file} is damaged: {error}. Install the package anew") from error
            if hashlib.sha256(array.tobytes()).hexdigest() != DIGESTS[name][f"{split}_{what}"]:
                raise DataError(f"{FOLDER / file} is damaged: its sha256 is wrong. Install the package anew")
            array.setflags(write=False)
            arrays[f"{split}_{what}"] = array
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
