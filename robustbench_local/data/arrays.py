"""A user's own arrays: a .npz with images and labels, or an .npy beside the .npy of its labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import SPLITS, Bytes, Labels, Split
from robustbench_local.data.npy import Npz, read_npy

_KEYS = {"test": [("x_test", "y_test"), ("x", "y"), ("images", "labels")], "train": [("x_train", "y_train")]}
_MOST_CLASSES = 100_000  # that have no names: a larger label is no class, but an id or a mistake


def read_arrays(path: Path, split: str) -> Split:
    """NAME.npz with x and y (or images and labels; x_train and y_train, x_test and y_test for two splits), or
    NAME.npy with its labels in NAME_labels.npy. In a .npz, `classes` may name the classes; otherwise they are 0 to the
    highest label of both splits.

    Images: uint8, or floats in [0, 1] that are multiples of 1/255; (N, H, W), (N, H, W, C) or (N, C, H, W)
    with C 1 or 3. Labels: integers (N,) from 0. Of an .npy only the images that are asked for are read. Pickled
    content is refused. DataError says what does not fit.
    """
    where = f"arrays:{path}"
    if path.suffix == ".npz":
        images, labels, others, names = _from_npz(path, split)
    elif split != "test":
        raise DataError(f"{where} is the test split only: give a .npz with x_train and y_train")
    else:
        images, labels = read_npy(path), read_npy(path.with_name(f"{path.stem}_labels.npy"))
        others, names = [], ()
    if images.size == 0:
        raise DataError(f"{where}: images have shape {images.shape}: there are none")
    pixels = _Stored(images, _layout(images, where), where)
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(f"{where}: labels are {labels.dtype} {labels.shape}: give integers ({len(images)},)")
    every = [_checked(given, names, where) for given in (labels, *others)]
    classes = names or tuple(str(k) for k in range(1 + max(int(each.max(initial=0)) for each in every)))
    return pixels, every[0], classes


@dataclass(frozen=True)
class _Stored:
    """Images in any of the layouts; those asked for become uint8 (n, C, H, W)."""

    images: npt.NDArray[Any]
    layout: str
    where: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nbytes(self) -> int:
        return self.images.size

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Bytes:
        chosen = _to_bytes(self.images[rows], self.where)
        if self.layout == "NHW":
            return chosen[:, None]
        return chosen if self.layout == "NCHW" else np.ascontiguousarray(chosen.transpose(0, 3, 1, 2))


def _from_npz(
    path: Path, split: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[npt.NDArray[Any]], tuple[str, ...]]:
    """Images, labels, the labels of the other split, and the names of the classes where there are some."""
    archive = Npz(path)
    keys = {
        each: next((pair for pair in _KEYS[each] if pair[0] in archive and pair[1] in archive), None) for each in SPLITS
    }
    own = keys.pop(split)
    if own is None:
        known = " or ".join(f"{images} and {labels}" for images, labels in _KEYS[split])
        held = ", ".join(archive.names[:20]) or "nothing"
        raise DataError(f"arrays:{path} holds {held}: the {split} split needs {known}")
    names = _names(archive["classes"], path) if "classes" in archive else ()
    others = [archive[pair[1]] for pair in keys.values() if pair is not None]
    return archive[own[0]], archive[own[1]], others, names


def _names(given: npt.NDArray[Any], path: Path) -> tuple[str, ...]:
    if given.ndim != 1 or given.dtype.kind not in "USui" or not len(given):
        raise DataError(f"arrays:{path}: classes are {given.dtype} {given.shape}: give one name for each class")
    names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in given.tolist()]
    twice, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f'arrays:{path}: classes names "{twice}" twice: every class needs a name of its own')
    return tuple(names)


def _checked(labels: npt.NDArray[Any], names: tuple[str, ...], where: str) -> Labels:
    """int64 (N,), of 0 to K - 1."""
    if labels.dtype.kind not in "ui":
        raise DataError(f"{where}: labels are {labels.dtype} {labels.shape}: give integers ({labels.size},)")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    most = len(names) or _MOST_CLASSES
    if low < 0 or high >= most:
        raise DataError(
            f"{where}: labels span [{low}, {high}]: give 0 to {most - 1} for {most} classes"
            + ("" if names else " at most (a .npz may name more by `classes`): numbers of classes, from 0, and not ids")
        )
    return labels.reshape(-1).astype(np.int64)


def _layout(images: npt.NDArray[Any], where: str) -> str:
    if images.ndim == 3:
        return "NHW"
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, -1))
    if first == last:
        fault = "fits both (N, C, H, W) and (N, H, W, C)" if first else "is no layout of images"
        raise DataError(
            f"{where}: shape {images.shape} {fault}: give (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3"
        )
    return "NCHW" if first else "NHWC"


def _to_bytes(images: npt.NDArray[Any], where: str) -> Bytes:
    """The same images as uint8; floats only where that loses nothing."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        hint = " (bool: multiply by 255 as uint8)" if images.dtype.kind == "b" else ""
        raise DataError(f"{where}: images are {images.dtype}: give uint8, or floats in [0, 1]{hint}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise DataError(f"{where}: images span [{low:g}, {high:g}]: give uint8, or uint8 divided by 255")
    levels = np.rint(images * 255)
    if np.abs(images * 255 - levels).max() > 255 * np.finfo(images.dtype).eps:
        raise DataError(f"{where}: images are no multiples of 1/255: pixels must be those of 8-bit images")
    return np.asarray(levels, np.uint8)
