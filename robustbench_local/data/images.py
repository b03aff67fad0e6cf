"""Images of a data set as the rest of the package sees them: uint8 at rest, float32 in [0, 1] when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_local.core.device import free_memory
from robustbench_local.data.catalogue import Bytes, Labels, Pixels
from robustbench_local.data.picture_cache import PictureCache
from robustbench_local.data.summary import BLOCK_BYTES, Summary
from robustbench_local.data.transform import Transform

MOST_IN_MEMORY = 1 << 28  # bytes of chosen images; more of them are read where they lie, whenever they are asked for


@dataclass(frozen=True)
class Chosen:
    """Some of many images, by their rows (n,): what is asked of them is read then."""

    pixels: Pixels
    rows: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.pixels[:1].shape[1:])

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes // len(self.pixels) * len(self)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Bytes:
        return self.pixels[self.rows[rows]]


@dataclass(frozen=True, eq=False)
class Images:
    """uint8 pixels of (a part of) a split, with labels and ids; index it for float images.

    name     "mnist", "cifar10", "folder:PATH", "arrays:PATH" and the like
    split    "test" or "train"
    pixels   uint8 (N, C, H, W): a tensor on the device where it fits; on the CPU, and where it does not, an array or a
             memory map, and of what is too large for memory what reads the images that are asked for
    labels   int64 (N,) on the device
    ids      int64 (N,) on the device: index in the official order of the split
    classes  names of the K classes
    digest   sha256 over the pixels, then the labels as int64, in C order, little-endian
    transform  what made photographs of any size images of one
    """

    name: str
    split: str
    pixels: Tensor | Bytes | Chosen
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    digest: str
    device: torch.device
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, n: int) -> Images:
        """The first n of them, of which none is read yet that was not before."""
        pixels = Chosen(self.pixels, np.arange(n)) if isinstance(self.pixels, Chosen) else self.pixels[:n]
        return replace(self, pixels=pixels, labels=self.labels[:n], ids=self.ids[:n])

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
    *,
    transform: Transform | None = None,
    own: bool = False,
) -> Images:
    """Images of the chosen ids of a split, on a device.

    pixels (N images) and labels (N,) are the whole split, of which only the chosen are read. On the CPU a slice of an
    array is a view of it, memory map or not; to another device the pixels move once, if they take less than half of
    its free memory. own: whether they are a user's, whose range of pixels is checked.
    """
    device = torch.device(device)
    index = np.arange(len(pixels))[ids if isinstance(ids, slice) else list(ids)]
    chosen_labels = labels[index].astype("<i8")
    if isinstance(pixels, PictureCache):
        pixels.prepare(index)
        summary = Summary.kept(pixels, index, Chosen(pixels, index), chosen_labels)
        chosen = _read(pixels, ids, index)
    else:
        chosen = _read(pixels, ids, index)
        summary = Summary.of(chosen, chosen_labels)
    if own:
        summary.check_levels(name, len(index))
    return Images(
        name=name,
        split=split,
        pixels=_moved(chosen, device) if _fits(chosen.nbytes, device) else chosen,
        labels=torch.from_numpy(chosen_labels).to(device),
        ids=torch.from_numpy(index).to(device),
        classes=classes,
        digest=summary.digest,
        device=device,
        transform=transform,
    )


def _read(pixels: Pixels, ids: slice | Sequence[int], index: npt.NDArray[np.intp]) -> Bytes | Chosen:
    """The chosen images: a view where they are an array's slice, read now where they are few, and when needed else."""
    chosen = Chosen(pixels, index)
    if chosen.nbytes > MOST_IN_MEMORY and not (isinstance(pixels, np.ndarray) and isinstance(ids, slice)):
        return chosen
    return pixels[ids if isinstance(ids, slice) else index]


def few_classes(labels: Tensor, classes: Sequence[str]) -> str | None:
    """The flag "few_classes:3/10" where labels (N,) hold 3 of 10 classes: such figures say nothing of the others."""
    found = len(labels.unique())
    return f"few_classes:{found}/{len(classes)}" if found < len(classes) else None


def _fits(size: int, device: torch.device) -> bool:
    """Whether the pixels should live on the device: never on the CPU, where they are within reach already."""
    free = free_memory(device)
    return device.type != "cpu" and (free is None or size < free / 2)


def _moved(pixels: Pixels, device: torch.device) -> Tensor:
    """The images on the device, by way of a block in host memory at a time."""
    moved = torch.empty((len(pixels), *pixels[:1].shape[1:]), dtype=torch.uint8, device=device)
    step = max(1, BLOCK_BYTES * len(pixels) // pixels.nbytes)
    for start in range(0, len(pixels), step):
        moved[start : start + step] = torch.from_numpy(np.array(pixels[start : start + step], order="C"))
    return moved
