"""Canny's edges (Canny 1986), batched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.corruptions._sampling import pixels, sample


def canny(x: Tensor, low: float, high: float, length: Callable[[Tensor, Tensor], Tensor] = torch.hypot) -> Tensor:
    """Edges of x (N, 1, H, W), bool: ridges of the gradient's length above low, joined to some above high.

    The gradient is Sobel's, 8 times the slope. Of its outermost pixels an image has no edges.
    """
    smooth, slope = x.new_tensor([1, 2, 1]), x.new_tensor([-1, 0, 1])
    kernels = torch.stack([slope[:, None] * smooth, smooth[:, None] * slope]).unsqueeze(1)
    down, right = F.conv2d(F.pad(x, (1,) * 4, mode="replicate"), kernels).split(1, 1)
    size = length(down, right)
    most = torch.maximum(down.abs(), right.abs()).clamp_min(torch.finfo(x.dtype).tiny)
    rows, columns = pixels(x)
    step = (down / most).squeeze(1), (right / most).squeeze(1)
    ridge = size > 0
    for sign in (1, -1):
        ridge &= size >= sample(size, rows + sign * step[0], columns + sign * step[1])
    inner = torch.zeros_like(ridge)
    inner[:, :, 1:-1, 1:-1] = True
    faint = ridge & inner & (size >= low)
    strong = faint & (size >= high)
    while True:
        grown = (F.max_pool2d(strong.to(x), 3, stride=1, padding=1) > 0) & faint
        if torch.equal(grown, strong):
            return strong
        strong = grown
