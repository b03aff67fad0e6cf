"""Filters and samplers that act on rows and columns apart, as one small matrix for each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Edge = Literal["mirror", "reflect", "nearest"]


def separable(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """down x across^T for every image and channel: x (N, C, H, W), down (H', H), across (W', W) -> (N, C, H', W').

    Either matrix may also be one per image, (N, 1, H', H).
    """
    return down @ (x @ across.mT)


def mirrored(length: int, weights: Tensor) -> Tensor:
    """(length, length): the filter `weights` (odd, its middle at the pixel), with edges mirrored and not repeated."""
    return filtering(length, weights, "mirror")


def filtering(length: int, weights: Tensor, edge: Edge) -> Tensor:
    """(length, length): the filter `weights` (odd, its middle at the pixel).

    edge, of a b c: "mirror" goes on b c, "reflect" (the edge repeated once) a b c, "nearest" a a a.
    """
    reach = len(weights) // 2
    place = _inside(torch.arange(length)[:, None] + torch.arange(-reach, reach + 1), length, edge)
    return torch.zeros(length, length, dtype=weights.dtype).scatter_add_(1, place, weights.expand(length, -1))


def framed(x: Tensor, before: int, after: int, edge: Edge) -> Tensor:
    """x (N, C, H, W) with so many more pixels above and left, and below and right; however small x is."""
    for axis in (2, 3):
        length = x.shape[axis]
        place = torch.arange(-before, length + after, device=x.device)
        x = x.index_select(axis, _inside(place, length, edge))
    return x


def _inside(place: Tensor, length: int, edge: Edge) -> Tensor:
    """Which of the pixels 0 .. length - 1 is to be seen at these places, outside as well."""
    if edge == "nearest":
        return place.clamp(0, length - 1)
    around, again = (max(1, 2 * length - 2), 0) if edge == "mirror" else (2 * length, 1)
    place = place % around
    return torch.minimum(place, around - again - place)


def gaussian(length: int, sigma: float, edge: Edge, truncate: float = 4.0) -> Tensor:
    """(length, length) float64: the normal filter, cut off after `truncate` sigma, as SciPy does it."""
    reach = int(truncate * sigma + 0.5)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(place**2) / (2 * max(sigma, 1e-9) ** 2))
    return filtering(length, weights / weights.sum(), edge)


def cut(length: int, start: Tensor, count: Tensor, size: int, place: Tensor) -> Tensor:
    """(N, 1, size, length): bilinear resampling of pixels start .. start + count - 1 to a line, one per image.

    start, count (N,) in pixels of the source. place (N, 2): where on the line of `size` pixels the result begins and
    how many it is long; outside there are zeros. Pixels are squares, so that no shift comes with a change of size.
    """
    out = torch.arange(size, device=start.device)
    begin, long = place[:, :1], place[:, 1:]
    source = (out - begin + 0.5) * count[:, None] / long - 0.5
    source = source.clamp(min=source.new_zeros(()), max=(count[:, None] - 1).to(source)) + start[:, None]
    weights = (1 - (source[..., None] - torch.arange(length, device=start.device)).abs()).clamp_min(0)
    inside = (out >= begin) & (out < begin + long)
    return (weights * inside[..., None])[:, None]
