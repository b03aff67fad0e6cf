"""A user's own arrays: a .npz with images and labels, or an .npy beside the .npy of its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.data.catalogue import Bytes, Split
from robustbench_local.errors import DataError

_KEYS = {
    "test": [("x_test", "y_test"), ("x", "y"), ("images", "labels")],
    "train": [("x_train", "y_train")],
}


def read_arrays(path: Path, split: str) -> Split:
    """NAME.npz with x and y (or images and labels; x_train and y_train, x_test and y_test for two splits), or
    NAME.npy with its labels in NAME_labels.npy. In a .npz, `classes` may name the classes.

    Images: uint8, or floats in [0, 1] that are multiples of 1/255; (N, H, W), (N, H, W, C) or (N, C, H, W)
    with C 1 or 3. Labels: integers (N,) from 0. Pickled content is refused. DataError says what does not fit.
    """
    where = f"arrays:{path}"
    try:
        images, labels, names = _load_npz(path, split) if path.suffix == ".npz" else _load_npy(path, split)
    except FileNotFoundError as error:
        raise DataError(f"{where}: there is no file {error.filename}") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where} cannot be read as arrays of numbers: {error}") from error
    pixels = _channels_first(_to_bytes(images, where), where)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((len(pixels),), (len(pixels), 1)):
        raise DataError(f"{where}: labels are {labels.dtype} {labels.shape}: give integers ({len(pixels)},)")
    labels = labels.reshape(-1)
    classes = names or tuple(str(k) for k in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"{where}: labels span [{labels.min()}, {labels.max()}]: "
            f"give 0 to {len(classes) - 1} for {len(classes)} classes"
        )
    return pixels, labels, classes


def _load_npz(path: Path, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as archive:
        for images, labels in _KEYS[split]:
            if images in archive and labels in archive:
                names = tuple(map(str, archive["classes"])) if "classes" in archive else ()
                return archive[images], archive[labels], names
        known = " or ".join(f"{images} and {labels}" for images, labels in _KEYS[split])
        raise DataError(f"arrays:{path} holds {', '.join(archive)}: the {split} split needs {known}")


def _load_npy(path: Path, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...]]:
    if split != "test":
        raise DataError(f"arrays:{path} is the test split only: give a .npz with x_train and y_train")
    labels = path.with_name(f"{path.stem}_labels.npy")
    return np.load(path, mmap_mode="r", allow_pickle=False), np.load(labels, allow_pickle=False), ()


def _to_bytes(images: npt.NDArray[Any], where: str) -> Bytes:
    """The same images as uint8; floats only where that loses nothing."""
    if images.size == 0:
        raise DataError(f"{where}: images have shape {images.shape}: there are none")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where}: images are {images.dtype}: give uint8, or floats in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise DataError(f"{where}: images span [{low:g}, {high:g}]: give uint8, or uint8 divided by 255")
    levels = np.rint(images * 255)
    if np.abs(images * 255 - levels).max() > 255 * np.finfo(images.dtype).eps:
        raise DataError(f"{where}: images are no multiples of 1/255: pixels must be those of 8-bit images")
    return np.asarray(levels, np.uint8)


def _channels_first(images: Bytes, where: str) -> Bytes:
    """(N, C, H, W) of any of the three layouts."""
    if images.ndim == 3:
        return images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, -1))
    if first == last:
        fault = "fits both (N, C, H, W) and (N, H, W, C)" if first else "is no layout of images"
        raise DataError(
            f"{where}: shape {images.shape} {fault}: give (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3"
        )
    return images if first else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
