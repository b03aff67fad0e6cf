"""Means over a square of neighbours, weighted by how alike the pixels or the patches around them are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_mean(x: Tensor, reach: int, radius: int, scale: float, nearness: float = 0.0) -> Tensor:
    """sum_t w_t x_t / sum_t w_t over offsets t = (i, j) up to reach; w_t = exp(-scale d_t - nearness (i^2 + j^2)).

    d_t sums the squared differences of the patches of that radius around both pixels, over all channels. Edges are
    mirrored without repeating the edge itself: images must be larger than reach + radius.
    """
    padded = F.pad(x.contiguous(), (reach + radius,) * 4, mode="reflect")
    mean: Tensor = _WeightedMean.apply(padded, reach, radius, scale, nearness)  # type: ignore[no-untyped-call]
    return mean


class _WeightedMean(torch.autograd.Function):
    """Backwards each offset is computed anew, so that memory does not grow with their number."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, reach: int, radius: int, scale: float, nearness: float) -> Tensor:
        size = [length - 2 * (reach + radius) for length in padded.shape[2:]]
        total = padded.new_zeros(*padded.shape[:2], *size)
        norm = padded.new_zeros(len(padded), 1, *size)
        for _, there, weight, _ in _offsets(padded, reach, radius, scale, nearness):
            total.addcmul_(weight, _inner(there, radius))
            norm += weight
        total /= norm
        ctx.save_for_backward(padded, total, norm)
        ctx.settings = reach, radius, scale, nearness
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        padded, mean, norm = ctx.saved_tensors
        reach, radius, scale, nearness = ctx.settings
        per_tap = grads[0] / norm  # of the mean by w_t x_t
        through_norm = (per_tap * mean).sum(1, keepdim=True)
        out = torch.zeros_like(padded)
        mine = out[..., reach : out.shape[2] - reach, reach : out.shape[3] - reach]
        for place, there, weight, difference in _offsets(padded, reach, radius, scale, nearness):
            theirs = out[place]
            tap = _inner(there, radius)
            _inner(theirs, radius).addcmul_(weight, per_tap)
            by_distance = ((per_tap * tap).sum(1, keepdim=True) - through_norm) * weight
            by_pixel = difference * _box(F.pad(by_distance, (2 * radius,) * 4), radius)  # a box is its own adjoint
            mine.sub_(by_pixel, alpha=2 * scale)
            theirs.add_(by_pixel, alpha=2 * scale)
        return out, None, None, None, None


def _offsets(
    padded: Tensor, reach: int, radius: int, scale: float, nearness: float
) -> Iterator[tuple[Any, Tensor, Tensor, Tensor]]:
    """(where the shifted images lie, those, the weights (N, 1, H, W), here - there) for each offset."""
    height, width = (length - 2 * reach for length in padded.shape[2:])
    here = padded[..., reach : reach + height, reach : reach + width]
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            place = (..., slice(i, i + height), slice(j, j + width))
            difference = here - padded[place]
            weight = _box(_squares(difference), radius).mul_(-scale).exp_()
            weight *= math.exp(-nearness * ((i - reach) ** 2 + (j - reach) ** 2))
            yield place, padded[place], weight, difference


def _squares(difference: Tensor) -> Tensor:
    """(N, 1, H, W): summed over channels."""
    first, *others = difference.split(1, 1)
    total: Tensor = first * first
    for other in others:
        total.addcmul_(other, other)
    return total


def _box(d: Tensor, radius: int) -> Tensor:
    """Sums over squares of that radius, where they lie inside."""
    for axis in (2, 3) if radius else ():
        size = d.shape[axis] - 2 * radius
        total = d.narrow(axis, 0, size) + d.narrow(axis, 1, size)
        for k in range(2, 2 * radius + 1):
            total += d.narrow(axis, k, size)
        d = total
    return d


def _inner(x: Tensor, radius: int) -> Tensor:
    """Without a border of that radius."""
    inner: Tensor = x[..., radius : x.shape[2] - radius, radius : x.shape[3] - radius]
    return inner
