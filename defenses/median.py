"""Median filter: every value becomes the median of a square around it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defenses._wrapper import Wrapper, check
from robustbench_local.draws import Draws


@dataclass(frozen=True)
class Median(Wrapper):
    """The median of size x size values, channel by channel, with edges mirrored.

    Of an even number it is the upper of the two in the middle, and the square reaches further up and left than down
    and right, as in SciPy, which the paper used with size 2 on MNIST and CIFAR-10. The gradient goes to the value that
    was picked (in equal shares where several are equal).
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "median filter"
    paper: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"
    family: ClassVar[str] = "denoising"

    size: int = 2

    def __post_init__(self) -> None:
        check("size", self.size, 2, 7, "the side of the square in pixels")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        before = self.size // 2
        after = self.size - 1 - before
        height, width = x.shape[2:]
        down, across = (_mirrored(length, before, after, x.device) for length in (height, width))
        padded = x[:, :, down][..., across]
        taps = [
            padded[:, :, i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)
        ]  # fmt: skip
        picked: Tensor = _Pick.apply(*taps)  # type: ignore[no-untyped-call]
        return picked


def _mirrored(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices -before .. length + after - 1, mirrored at the edges with the edge itself repeated."""
    place = torch.arange(-before, length + after, device=device) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


class _Pick(torch.autograd.Function):
    """The (upper) median of n tensors. Backwards it looks for who was picked: nothing of the sorting is kept."""

    @staticmethod
    def forward(ctx: Any, *taps: Tensor) -> Tensor:
        wires = list(taps)
        for (a, b), felt in comparators(len(taps)):
            pair = wires[a], wires[b]
            if a in felt:
                wires[a] = torch.minimum(*pair)
            if b in felt:
                wires[b] = torch.maximum(*pair)
        picked = wires[len(taps) // 2]
        ctx.save_for_backward(picked, *taps)
        return picked

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        picked, *taps = ctx.saved_tensors
        same = [tap == picked for tap in taps]
        count = functools.reduce(torch.add, same, torch.zeros_like(picked))
        share = grads[0] / count
        return tuple(share * each for each in same)


@functools.cache
def comparators(count: int) -> tuple[tuple[tuple[int, int], frozenset[int]], ...]:
    """Batcher's odd-even merge sort of `count` wires (1968), as far as the middle one feels it: the wires (a, b) of
    each comparator, whose smaller value goes to a, and the wires that are felt behind it.
    """
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
    felt, kept = {count // 2}, []
    for pair in reversed(network):
        if felt.intersection(pair):
            kept.append((pair, frozenset(felt)))
            felt.update(pair)
    return tuple(reversed(kept))
