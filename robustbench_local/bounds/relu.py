"""ReLU between two lines (Zhang et al. 2018, CROWN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.rounding import SLACK
from robustbench_local.bounds.step import Box, Linear, Step, product


@dataclass(frozen=True)
class ReLU(Step):
    """max(z, 0). Above by the chord from (l, 0) to (u, u); below by z or 0, whichever leaves the smaller triangle.

    Where the sign of z is known, both lines are the value itself: only the other values, of unknown sign for some
    image, cost more than a product.
    """

    separable = True

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(inner.low.clamp(min=0), inner.high.clamp(min=0))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        return self.between(above, inputs[0], self.slopes(inputs[0]).unsqueeze(1))

    @staticmethod
    def unknown(inner: Box) -> Tensor:
        """(U,) numbers of the values whose sign is unknown for some image."""
        return ((inner.low < 0) & (inner.high > 0)).flatten(1).any(0).nonzero()[:, 0]

    @classmethod
    def slopes(cls, inner: Box) -> Tensor:
        """(N, U): of the lines below the values of unknown sign."""
        low, high = (end.flatten(1)[:, cls.unknown(inner)] for end in inner)
        return (high > -low).to(low)

    @classmethod
    def between(cls, above: Tensor, inner: Box, slopes: Tensor) -> Linear:
        """As backward, with lines of these slopes (N or 1, R or 1, U) in [0, 1] below the values of unknown sign."""
        low, high = inner.low.flatten(1).clamp(max=0), inner.high.flatten(1).clamp(min=0)
        chord = high / (high - low).clamp(min=1e-300)  # 0 where always off, 1 where always on
        some = cls.unknown(inner)
        low, high, steep = (each[:, some] for each in (low, high, chord))
        offset = -low * steep + SLACK * high
        flat = above.flatten(2)
        positive, negative = flat[..., some].clamp(min=0), flat[..., some].clamp(max=0)
        below = torch.where(((low < 0) & (high > 0)).unsqueeze(1), slopes, steep.unsqueeze(1))
        mixed = (flat * chord.unsqueeze(1)).index_add(2, some, positive * (below - steep.unsqueeze(1)))
        return Linear((mixed.view(*mixed.shape[:2], *inner.low.shape[1:]),), product(negative, offset))
