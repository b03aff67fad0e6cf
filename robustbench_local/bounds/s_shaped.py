"""Sigmoid and tanh between two lines (Singh et al. 2019, DeepPoly, doi:10.1145/3290354, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.rounding import UNDERFLOW, gamma
from robustbench_local.bounds.step import Box, Linear, Step, product
from robustbench_local.bounds.window import Window

_ROUNDINGS = 16  # units in the last place of 1, which sigmoid and tanh in float32 are nowhere off by
_SLOPES: dict[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    torch.sigmoid: lambda value: value * (1 - value),
    torch.tanh: lambda value: 1 - value.square(),
}


@dataclass(frozen=True)
class SShaped(Step):
    """f rises, is convex below 0 and concave above. shape: torch.sigmoid or torch.tanh.

    Its slope on [l, u] is least at an end, k. Below: the chord where l >= 0, else f(l) + k (z - l). Above: the chord
    where u <= 0, else f(u) - k (u - z).
    """

    shape: Callable[[Tensor], Tensor]
    separable = True

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        room = gamma(_ROUNDINGS) + UNDERFLOW
        return Box(self.shape(inner.low) - room, self.shape(inner.high) + room)

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        (inner,) = inputs
        low, high = inner
        ends = self.shape(low), self.shape(high)
        flattest = _SLOPES[self.shape](ends[0]).minimum(_SLOPES[self.shape](ends[1]))
        width = high - low
        chord = torch.where(width > 1e-6, (ends[1] - ends[0]) / width.clamp(min=1e-6), flattest)
        below, over = torch.where(low >= 0, chord, flattest), torch.where(high <= 0, chord, flattest)
        room = gamma(_ROUNDINGS) * (1 + inner.magnitude)  # for float64 too, of slopes up to 1 times what f reads
        positive, negative = above.clamp(min=0), above.clamp(max=0)
        constant = product(positive, ends[0] - below * low - room) + product(negative, ends[1] - over * high + room)
        return Linear((positive * below.unsqueeze(1) + negative * over.unsqueeze(1),), constant)

    def through(self, window: Window) -> tuple[SShaped, Window]:
        return self, window
