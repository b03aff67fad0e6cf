"""Filters and samplers that act on rows and columns apart, as one small matrix for each."""

from __future__ import annotations

import torch
from torch import Tensor


def separable(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """down x across^T for every image and channel: x (N, C, H, W), down (H', H), across (W', W) -> (N, C, H', W').

    Either matrix may also be one per image, (N, 1, H', H).
    """
    return down @ (x @ across.mT)


def mirrored(length: int, weights: Tensor) -> Tensor:
    """(length, length): the filter `weights` (odd, its middle at the pixel), with edges mirrored and not repeated."""
    reach = len(weights) // 2
    place = torch.arange(length)[:, None] + torch.arange(-reach, reach + 1)
    period = max(1, 2 * (length - 1))
    place = place % period
    place = torch.minimum(place, period - place)
    return torch.zeros(length, length, dtype=weights.dtype).scatter_add_(1, place, weights.expand(length, -1))


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
