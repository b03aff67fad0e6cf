"""Images as people have them in a script: tensors, arrays, a loader's batches, a data set, the name of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_local.config.settings import shown
from robustbench_local.core.errors import DataError

_FORMS = (
    "give x and y, a DataLoader or other iterable of (x, y), or the name of a data set such as cifar10 or folder:PATH"
)


def tensors_of(x: Any, y: Any = None, n: int | None = None) -> tuple[Tensor, Tensor]:
    """(images (N, C, H, W), labels (N,)) of tensors or arrays x and y, or, without y, of an iterable of pairs (x, y):
    batches, or single images (C, H, W) with a class each. n: the first n of them, and no more is asked of an iterable.

    Arrays of floats become float32, labels of whole numbers int64. DataError where it is neither, or holds no image.
    """
    if isinstance(x, Tensor | np.ndarray):
        if y is None:
            raise DataError("y is missing: the labels int64 (N,) of the images x")
        every, classes = _images(x), _labels(y)
        return (every, classes) if n is None or not every.ndim or not classes.ndim else (every[:n], classes[:n])
    try:
        pairs = None if y is not None or isinstance(x, str) else iter(x)  # a Dataset counts from 0 to its IndexError
    except TypeError:
        pairs = None
    if pairs is None:
        raise DataError(f"x is {shown(x)}{' with y' if y is not None else ''}: {_FORMS}")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    for item in pairs:
        one, own = _pair(item)
        images.append(one)
        labels.append(own)
        count += len(one)
        if n is not None and count >= n:
            break
    if not count:
        raise DataError(f"x is {shown(x)} and gave no images: {_FORMS}")
    try:
        return torch.cat(images)[:n], torch.cat(labels)[:n]
    except RuntimeError as error:
        raise DataError(f"the batches of x do not fit together: {error}") from error


def _pair(item: Any) -> tuple[Tensor, Tensor]:
    """A batch (n, C, H, W) with its labels (n,); one image with its class is a batch of one."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"x gave {shown(item)}: each batch must be a pair, images (n, C, H, W) and labels (n,)")
    x, y = item
    if not isinstance(x, Tensor | np.ndarray):
        raise DataError(f"a batch of x holds {shown(x)}: images must be tensors, as torchvision's ToTensor makes them")
    images = _images(x)
    if images.ndim == 3:
        images, y = images[None], [y]
    labels = _labels(y)
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise DataError(
            f"a batch of x has images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}: they"
            " must be (n, C, H, W) and (n,)"
        )
    return images, labels


def _images(x: Tensor | Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    try:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else None))
    except TypeError:
        raise DataError(f"x is {shown(x)}: images are floats (N, C, H, W) in [0, 1]") from None


def _labels(y: Any) -> Tensor:
    try:
        labels = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError(f"y is {shown(y)}: labels are whole numbers (N,)") from None
    return labels.long() if labels.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8) else labels
