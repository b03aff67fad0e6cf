"""Looking images up between their pixels, and changing their size."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Outside = Literal["black", "mirror", "reflect"]
_PADDING = {"black": ("zeros", True), "mirror": ("reflection", True), "reflect": ("reflection", False)}


def pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """(row, column) of every pixel of x (..., H, W), each (H, W)."""
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(length, dtype=x.dtype, device=x.device) for length in (height, width))
    return rows[:, None].expand(height, width), columns.expand(height, width)


def sample(x: Tensor, rows: Tensor, columns: Tensor, outside: Outside = "black") -> Tensor:
    """x (N, C, H, W) at places (N, H', W') in pixels, bilinear.

    outside, of a b c: "mirror" goes on b c, "reflect" (the edge repeated) a b c.
    """
    padding, centred = _PADDING[outside]
    if 1 in x.shape[2:]:  # between the middles of one pixel there is no distance to measure in: it gets a neighbour
        below, beside = (int(length == 1) for length in x.shape[2:])
        x = F.pad(x, (0, beside, 0, below), mode="constant" if outside == "black" else "replicate")
    height, width = x.shape[2:]
    across, along = (  # in units of half an image, between the middles of its outermost pixels or between their edges
        2 * place / (length - 1) - 1 if centred else (2 * place + 1) / length - 1
        for place, length in ((columns, width), (rows, height))
    )
    grid = torch.stack([across, along], -1).expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=centred)


def about_the_middle(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns), each (N, H, W): where `matrix` (N, 2, 2), over (column, row), takes the pixels of x."""
    rows, columns = pixels(x)
    middle = (x.shape[-2] - 1) / 2, (x.shape[-1] - 1) / 2
    down, right = rows - middle[0], columns - middle[1]
    a, b, c, d = matrix.flatten(1)[:, :, None, None].unbind(1)
    return c * right + d * down + middle[0], a * right + b * down + middle[1]


def zoomed(length: int, zoom: float) -> Tensor:
    """(length, length) float64: the middle, ceil(length / zoom) pixels of it, linearly stretched by `zoom`.

    The first and the last pixel keep their middles, as SciPy's zoom has it.
    """
    kept = math.ceil(length / zoom)
    size = round(kept * zoom)
    place = torch.arange(size, dtype=torch.float64) * ((kept - 1) / max(size - 1, 1))
    weights = (1 - (place[:, None] - torch.arange(kept)).abs()).clamp_min(0)
    first, trimmed = (length - kept) // 2, (size - length) // 2
    whole = torch.zeros(size, length, dtype=torch.float64)
    whole[:, first : first + kept] = weights
    return whole[trimmed : trimmed + length]


def resized(length: int, size: int, kernel: Literal["box", "triangle"]) -> Tensor:
    """(size, length) float64: resampling of pixels as squares, as Pillow's BOX and BILINEAR have it."""
    scale = length / size
    spread = max(scale, 1.0)
    middle = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    offset = (torch.arange(length) + 0.5 - middle) / spread
    weights = ((offset > -0.5) & (offset <= 0.5)).double() if kernel == "box" else (1 - offset.abs()).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
