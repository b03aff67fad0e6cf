"""ReLU between two lines (Zhang et al. 2018, CROWN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.rounding import SLACK
from robustbench_local.bounds.step import Box, Linear, Step, product
from robustbench_local.bounds.window import Window


@dataclass(frozen=True)
class ReLU(Step):
    """max(z, 0). Above by the chord from (l, 0) to (u, u); below by z or 0, whichever leaves the smaller triangle.

    Where the sign of z is known, both lines are the value itself.
    """

    separable = True

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(inner.low.clamp(min=0), inner.high.clamp(min=0))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        (inner,) = inputs
        chord, offset = self._chords(inner)
        below = torch.where((inner.low < 0) & (inner.high > 0), (inner.high > -inner.low).to(chord), chord)
        negative = above.clamp(max=0)
        mixed = (above * below.unsqueeze(1)).addcmul_(negative, (chord - below).unsqueeze(1))
        return Linear((mixed,), product(negative, offset))

    def through(self, window: Window) -> tuple[ReLU, Window]:
        return self, window

    @staticmethod
    def _chords(inner: Box) -> tuple[Tensor, Tensor]:
        """(N, *shape): slopes of the lines above, 0 where always off and 1 where always on; and their values at 0."""
        low, high = inner.low.clamp(max=0), inner.high.clamp(min=0)
        chord = high / (high - low).clamp(min=1e-300)
        return chord, -low * chord + SLACK * high

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
        """As backward, with lines of these slopes (N, R, U) in [0, 1] below the values of unknown sign."""
        chord, offset = (each.flatten(1) for each in cls._chords(inner))
        some = cls.unknown(inner)
        low, high, steep = (each.flatten(1)[:, some].unsqueeze(1) for each in (*inner, chord))
        flat = above.flatten(2)
        positive, negative = flat[..., some].clamp(min=0), flat[..., some].clamp(max=0)
        below = torch.where((low < 0) & (high > 0), slopes, steep)
        mixed = (flat * chord.unsqueeze(1)).index_add_(2, some, positive * (below - steep))
        return Linear((mixed.view(*mixed.shape[:2], *inner.low.shape[1:]),), product(negative, offset[:, some]))
