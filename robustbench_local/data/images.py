"""Images of a data set as the rest of the package sees them: uint8 at rest, float32 in [0, 1] when asked."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Bytes, Labels, Pixels

_BLOCK = 4096  # images hashed at a time, so that a memory map is never copied whole
_DARK = 32  # of 255: a brightest pixel below it is more likely a mistake of range than a set of photographs


@dataclass(frozen=True, eq=False)
class Images:
    """uint8 pixels of (a part of) a split, with labels and ids; index it for float images.

    name     "mnist", "cifar10", "folder:PATH" or "arrays:PATH"
    split    "test" or "train"
    pixels   uint8 (N, C, H, W): a tensor on the device where it fits; an array in host memory or a memory map
             on the CPU and where it does not
    labels   int64 (N,) on the device
    ids      int64 (N,) on the device: index in the official order of the split
    classes  names of the K classes
    digest   sha256 over the pixels, then the labels as int64, in C order, little-endian
    """

    name: str
    split: str
    pixels: Tensor | Bytes
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    digest: str
    device: torch.device

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """float32 (n, C, H, W) in [0, 1] on the device; rows: a slice, int64 indices or bool (N,)."""
        if isinstance(self.pixels, Tensor):
            block = self.pixels[rows if isinstance(rows, slice) else rows.to(self.device)]
        else:
            index = rows if isinstance(rows, slice) else rows.cpu().numpy()
            block = torch.from_numpy(np.array(self.pixels[index], order="C")).to(self.device)
        # By a tensor: CUDA multiplies by the reciprocal of a number, which is another float than pixel / 255.
        return block.float().div_(torch.full((), 255.0, device=self.device))


def load_images(
    name: str,
    split: str,
    pixels: Pixels,
    labels: Labels,
    ids: slice | Sequence[int],
    classes: tuple[str, ...],
    device: str | torch.device,
) -> Images:
    """Images of the chosen ids of a split, on a device.

    pixels (N images) and labels (N,) are the whole split, of which only the chosen are read. On the CPU a slice of an
    array is a view of it, memory map or not; to another device the pixels move once, if they take less than half of
    its free memory.
    """
    device = torch.device(device)
    index = np.arange(len(pixels))[ids if isinstance(ids, slice) else list(ids)]
    chosen = pixels[ids if isinstance(ids, slice) else index]
    chosen_labels = labels[index].astype("<i8")
    return Images(
        name=name,
        split=split,
        pixels=torch.from_numpy(np.array(chosen)).to(device) if _fits(chosen.nbytes, device) else chosen,
        labels=torch.from_numpy(chosen_labels).to(device),
        ids=torch.from_numpy(index).to(device),
        classes=classes,
        digest=_digest(chosen, chosen_labels),
        device=device,
    )


def check_levels(images: Images) -> None:
    """DataError where a user's pixels are all 0 or 1 of 255, and a warning where none is bright."""
    brightest = int(images.pixels.max())
    if brightest == 1:
        raise DataError(
            f"{images.name}: the 8-bit pixels of all {len(images)} images are 0 or 1, which would be 0 and 1/255:"
            " multiply them by 255 if 1 stands for white, or give them as floats in [0, 1]"
        )
    if 0 < brightest < _DARK:
        warnings.warn(
            f"{images.name}: the brightest pixel of all {len(images)} images is {brightest} of 255: multiply the pixels"
            " if they were scaled to another range",
            stacklevel=4,
        )


def few_classes(labels: Tensor, classes: Sequence[str]) -> str | None:
    """The flag "few_classes:3/10" where labels (N,) hold 3 of 10 classes: such figures say nothing of the others."""
    found = len(labels.unique())
    return f"few_classes:{found}/{len(classes)}" if found < len(classes) else None


def _fits(size: int, device: torch.device) -> bool:
    """Whether the pixels should live on the device: never on the CPU, where they are within reach already."""
    if device.type == "cuda":
        return size < torch.cuda.mem_get_info(device)[0] / 2
    return device.type != "cpu"


def _digest(pixels: Bytes, labels: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(pixels), _BLOCK):
        digest.update(np.ascontiguousarray(pixels[start : start + _BLOCK]).data)
    digest.update(labels.data)
    return digest.hexdigest()
