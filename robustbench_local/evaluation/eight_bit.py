"""Adversarial images as a file would hold them: 256 levels, still inside the ball."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.core.threat import Norm, ThreatModel


def to_8bit(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """x_adv (N, C, H, W) on multiples of 1/255. Where rounding to nearest leaves the ball it rounds towards x.

    L∞ is rounded pixel by pixel into the ball. x itself should be an 8-bit image, as data sets are.
    """
    levels, clean = x_adv * 255, x * 255
    nearest = levels.round()
    if threat.norm is Norm.LINF:
        slack = 1e-3  # of a grey level, so that 8/255 in float32 still reaches 8 levels
        low, high = (clean - threat.eps * 255 - slack).ceil(), (clean + threat.eps * 255 + slack).floor()
        return torch.minimum(torch.maximum(nearest, low), high).clamp(0, 255) / 255
    left = ~threat.contains(nearest / 255, x)
    towards = (clean + (levels - clean).trunc()).round()
    return torch.where(left.view(-1, 1, 1, 1), towards, nearest).clamp(0, 255) / 255
