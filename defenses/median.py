"""Median filter: every value becomes the median of a square around it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.core.blocks import blocks
from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check
from robustbench_local.ops.separable import framed

Network = Sequence[tuple[tuple[int, int], frozenset[int]]]  # comparators, and the wires that are felt behind each
_IN_CACHE = 2**17  # values of which a CPU keeps a few tensors close


@dataclass(frozen=True)
class Median(Wrapper):
    """The median of size x size values, channel by channel, with edges mirrored.

    Of an even number it is the upper of the two in the middle, and the square reaches further up and left than down
    and right, as in SciPy, which the paper used with size 2 on MNIST and CIFAR-10. The gradient goes to the value that
    was picked (in equal shares where several are equal).

    size: the side of the square, from 2 to 7 pixels.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "median filter"
    paper: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"
    family: ClassVar[str] = "denoising"

    size: int = 2

    def __post_init__(self) -> None:
        check("size", self.size, 2, 7, "the side of the square in pixels")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        if not len(x):
            return x
        before = self.size // 2
        after = self.size - 1 - before
        if before <= min(x.shape[2:]):
            padded = _mirrored(_mirrored(x, 2, before, after), 3, before, after)
        else:
            padded = framed(x, before, after, "reflect")
        picked: Tensor = _Pick.apply(padded, self.size)  # type: ignore[no-untyped-call]
        return picked


def _mirrored(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Longer by what lies within the edges, the edges themselves repeated."""
    first, last = x.narrow(axis, 0, before), x.narrow(axis, x.shape[axis] - after, after)
    return torch.cat([first.flip(axis), x, last.flip(axis)], axis)


class _Pick(torch.autograd.Function):
    """Medians of the squares that lie within the images. Backwards it looks for who was picked: no sorting is kept."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, size: int) -> Tensor:
        parts = blocks(len(padded), padded[0].numel(), _IN_CACHE, padded.device)
        picked = torch.cat([_medians(padded[rows], size) for rows in parts])
        ctx.save_for_backward(padded, picked)
        ctx.size = size
        return picked

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        padded, picked = ctx.saved_tensors
        height, width = picked.shape[2:]
        places = [(..., slice(i, i + height), slice(j, j + width)) for i, j in product(range(ctx.size), repeat=2)]
        same = [padded[place] == picked for place in places]
        share = grads[0] / functools.reduce(torch.add, same, torch.zeros_like(picked))
        out = torch.zeros_like(padded)
        for place, each in zip(places, same, strict=True):
            out[place] += share * each
        return out, None


def _medians(padded: Tensor, size: int) -> Tensor:
    """(N, C, H + size - 1, W + size - 1) -> (N, C, H, W). Columns are sorted once for all squares that share them.

    Neighbours are the same long row of pixels, shifted; squares that span an edge of it are cut off at the end.
    """
    height, width = padded.shape[2:]
    pixels = padded.reshape(-1)
    squares = pixels.numel() - (size - 1) * (width + 1)
    columns = [pixels[i * width : i * width + squares + size - 1] for i in range(size)]
    everywhere = frozenset(range(size))
    columns = _through(columns, [(pair, everywhere) for pair in sorting(size)])
    network, middle = median_of_sorted_columns(size)
    picked = _through([rank[j : j + squares] for rank in columns for j in range(size)], network)[middle]
    whole = F.pad(picked, (0, pixels.numel() - squares)).view(padded.shape)
    return whole[:, :, : height - size + 1, : width - size + 1]


def _through(wires: list[Tensor], network: Network) -> list[Tensor]:
    for (a, b), felt in network:
        pair = wires[a], wires[b]
        if a in felt:
            wires[a] = torch.minimum(*pair)
        if b in felt:
            wires[b] = torch.maximum(*pair)
    return wires


@functools.cache
def sorting(count: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort (1968): pairs of wires (a, b), of whose values the smaller goes to a."""
    network = []
    p = 1
    while p < count:
        k = p
        while k:
            for j in range(k % p, count - k, 2 * k):
                lower = range(j, j + min(k, count - j - k))
                network += [(i, i + k) for i in lower if i // (2 * p) == (i + k) // (2 * p)]
            k //= 2
        p *= 2
    return tuple(network)


@functools.cache
def median_of_sorted_columns(size: int) -> tuple[Network, int]:
    """The comparators, and the wire the (upper) median comes out of. Wire size * i + j is of rank i in column j.

    Rows are sorted as well. Then (i, j) has (i + 1)(j + 1) - 1 others below or level and (size - i)(size - j) - 1 above
    or level: few are left that can be the median. What it does not feel is left out.
    """
    middle = size**2 // 2
    grid = list(product(range(size), repeat=2))
    below = [(i, j) for i, j in grid if (size - i) * (size - j) > size**2 - middle]
    rest = [size * i + j for i, j in grid if (i, j) not in below and (i + 1) * (j + 1) <= middle + 1]
    network = [(size * i + a, size * i + b) for i in range(size) for a, b in sorting(size)]
    network += [(rest[a], rest[b]) for a, b in sorting(len(rest))]
    found = rest[middle - len(below)]
    felt, kept = {found}, []
    for pair in reversed(network):
        if felt.intersection(pair):
            kept.append((pair, frozenset(felt)))
            felt.update(pair)
    return tuple(reversed(kept)), found
