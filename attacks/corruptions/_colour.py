"""Grey and colour."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws

_LUMA = (0.2125, 0.7154, 0.0721)  # of Rec. 709, as scikit-image takes it
_LUMA_601 = (0.299, 0.587, 0.114)  # as OpenCV takes it


def luma(x: Tensor, weights: tuple[float, float, float] = _LUMA_601) -> Tensor:
    """x (N, 1 or 3, H, W) -> (N, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    return torch.einsum("c,nchw->nhw", x.new_tensor(weights), x).unsqueeze(1)


def in_colour(x: Tensor, draws: Draws, change: Callable[[Tensor, Draws], Tensor]) -> Tensor:
    """change on three channels; an image of one becomes three equal ones and the result grey again (MNIST-C)."""
    if x.shape[1] == 3:
        return change(x, draws)
    return luma(change(x.expand(-1, 3, -1, -1), draws).clamp(0, 1), _LUMA)
