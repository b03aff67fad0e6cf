"""A user's own images: a folder with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from robustbench_local.data.catalogue import SPLITS, Bytes, Split
from robustbench_local.errors import DataError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_CHANNELS = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}  # 8-bit modes; alpha is dropped


def read_image_folder(path: Path, split: str) -> Split:
    """PATH/class/*.png, .jpg: classes and files in the order of their names.

    PATH/test/class and PATH/train/class where there are two splits; without them PATH is the test split. One
    channel if all images are grey, else RGB. DataError names a file that is unreadable or of another size.
    """
    if not path.is_dir():
        raise DataError(f"folder:{path} is not a folder")
    root = path / split if any((path / name).is_dir() for name in SPLITS) else path
    if not root.is_dir() or (root == path and split != "test"):
        raise DataError(f"folder:{path} has no {split} split: put its classes into {path / split}")
    classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."))
    files = [_image_files(root / name) for name in classes]
    if not all(files) or not files:
        empty = next((root / name for name, found in zip(classes, files, strict=True) if not found), root)
        raise DataError(f"{empty} holds no image: expected {root}/CLASS/NAME with {', '.join(_SUFFIXES)}")
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return _read_images([file for found in files for file in found]), labels, classes


def _image_files(folder: Path) -> list[Path]:
    visible = (file for file in folder.iterdir() if file.name[0] != ".")
    return sorted(file for file in visible if file.suffix.lower() in _SUFFIXES)


def _read_images(files: list[Path]) -> Bytes:
    """uint8 (N, C, H, W) of files that all have one size."""
    images = [_read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"{file} is {_size(image)}, but {files[0]} is {_size(images[0])}: all must have one size"
            )
    channels = max(len(image) for image in images)
    return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def _read_image(file: Path) -> Bytes:
    try:
        with Image.open(file) as image:
            if image.mode not in _CHANNELS:
                raise DataError(f"{file} has mode {image.mode}: give 8-bit grey or RGB images")
            pixels = np.asarray(image.convert(_CHANNELS[image.mode]))
    except OSError as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _size(image: Bytes) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
