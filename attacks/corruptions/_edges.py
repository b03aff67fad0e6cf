"""Canny's edges (Canny 1986), batched: as scikit-image and as OpenCV find them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.corruptions._sampling import pixels, sample

_EIGHTH = 13573 / 2**15  # tan(pi / 8) as OpenCV has it: a gradient less steep counts as level


def canny(x: Tensor, low: float, high: float) -> Tensor:
    """Edges of x (N, 1, H, W), bool, as in scikit-image: ridges of the gradient above low, joined to some above high.

    Along the gradient its length is interpolated. Of its outermost pixels an image has no edges.
    """
    down, right = _sobel(x)
    size = torch.hypot(down, right)
    most = torch.maximum(down.abs(), right.abs()).clamp_min(torch.finfo(x.dtype).tiny)
    rows, columns = pixels(x)
    step = (down / most).squeeze(1), (right / most).squeeze(1)
    ridge = size > 0
    for sign in (1, -1):
        ridge &= size >= sample(size, rows + sign * step[0], columns + sign * step[1])
    inner = torch.zeros_like(ridge)
    inner[:, :, 1:-1, 1:-1] = True
    faint = ridge & inner & (size >= low)
    return _joined(faint, faint & (size >= high))


def canny_8_bit(x: Tensor, low: float, high: float) -> Tensor:
    """Edges of x (N, 1, H, W), whole numbers in 0 .. 255, bool, as in OpenCV (3 x 3, L1).

    A gradient is level, upright or slanted; its length is the sum of its two sides, compared with the two neighbours
    that way: longer than the one before (left or above) and no shorter than the one after; slanted longer than both.
    Outside the image lengths are 0.
    """
    down, right = _sobel(x)
    size = down.abs() + right.abs()
    padded = F.pad(size, (1,) * 4)
    height, width = x.shape[2:]

    def neighbour(below: int, beside: int) -> Tensor:
        return padded[:, :, 1 + below : 1 + below + height, 1 + beside : 1 + beside + width]

    level = down.abs() < _EIGHTH * right.abs()
    upright = down.abs() > (_EIGHTH + 2) * right.abs()
    falling = (down < 0) == (right < 0)  # the gradient points down and right, or up and left
    ridge = torch.where(
        level,
        (size > neighbour(0, -1)) & (size >= neighbour(0, 1)),
        torch.where(
            upright,
            (size > neighbour(-1, 0)) & (size >= neighbour(1, 0)),
            torch.where(
                falling,
                (size > neighbour(-1, -1)) & (size > neighbour(1, 1)),
                (size > neighbour(-1, 1)) & (size > neighbour(1, -1)),
            ),
        ),
    )
    faint = ridge & (size > low)
    return _joined(faint, faint & (size > high))


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """(down, right), each like x (N, 1, H, W): 8 times the slope."""
    smooth, slope = x.new_tensor([1, 2, 1]), x.new_tensor([-1, 0, 1])
    kernels = torch.stack([slope[:, None] * smooth, smooth[:, None] * slope]).unsqueeze(1)
    down, right = F.conv2d(F.pad(x, (1,) * 4, mode="replicate"), kernels).split(1, 1)
    return down, right


def _joined(faint: Tensor, strong: Tensor) -> Tensor:
    """The faint ones (N, 1, H, W) that a chain of them joins to a strong one."""
    while True:
        grown = (F.max_pool2d(strong.float(), 3, stride=1, padding=1) > 0) & faint
        if torch.equal(grown, strong):
            return strong
        strong = grown
