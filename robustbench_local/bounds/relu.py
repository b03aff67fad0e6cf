"""ReLU between two lines (Zhang et al. 2018, CROWN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.rounding import SLACK
from robustbench_local.bounds.step import Box, Linear, Step, product


@dataclass(frozen=True)
class ReLU(Step):
    """max(z, 0). Above by the chord from (l, 0) to (u, u); below by z or 0, whichever leaves the smaller triangle."""

    separable = True

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(inner.low.clamp(min=0), inner.high.clamp(min=0))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        (inner,) = inputs
        low, high = inner.low.clamp(max=0), inner.high.clamp(min=0)
        slope = high / (high - low).clamp(min=1e-300)  # 0 where always off, 1 where always on
        offset = -low * slope + SLACK * high
        below = (high > -low).to(slope)
        negative = above.clamp(max=0)
        # above * below where it is positive, above * slope where it is negative
        mixed = torch.addcmul(above * below.unsqueeze(1), negative, (slope - below).unsqueeze(1))
        return Linear((mixed,), product(negative, offset))
