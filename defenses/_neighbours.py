"""Means over a square of neighbours, weighted by how alike the pixels or the patches around them are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.ops.separable import framed


def weighted_mean(x: Tensor, reach: int, radius: int, scale: float, nearness: float = 0.0) -> Tensor:
    """sum_t w_t x_t / sum_t w_t over offsets t = (i, j) up to reach; w_t = exp(-scale d_t - nearness (i^2 + j^2)).

    d_t sums the squared differences of the patches of that radius around both pixels, over all channels. Edges are
    mirrored without repeating the edge itself, in images smaller than reach + radius again and again.
    """
    frame = reach + radius
    if frame < min(x.shape[2:]):
        padded = F.pad(x.contiguous(), (frame,) * 4, mode="reflect")
    else:
        padded = framed(x.contiguous(), frame, frame, "mirror")
    mean: Tensor = _WeightedMean.apply(padded, reach, radius, scale, nearness)  # type: ignore[no-untyped-call]
    return mean


class _WeightedMean(torch.autograd.Function):
    """Backwards each offset is computed anew, so that memory does not grow with their number."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, reach: int, radius: int, scale: float, nearness: float) -> Tensor:
        size = [length - 2 * (reach + radius) for length in padded.shape[2:]]
        total = padded.new_zeros(*padded.shape[:2], *size)
        norm = padded.new_zeros(len(padded), 1, *size)
        for place, weight, _, _ in _offsets(padded, reach, radius, scale, nearness):
            total.addcmul_(weight, _inner(padded[place], radius))
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
        for place, weight, difference, sign in _offsets(padded, reach, radius, scale, nearness):
            theirs = out[place]
            tap = _inner(padded[place], radius)
            _inner(theirs, radius).addcmul_(weight, per_tap)
            by_distance = ((per_tap * tap).sum(1, keepdim=True) - through_norm) * weight
            by_pixel = difference * _box(F.pad(by_distance, (2 * radius,) * 4), radius)  # a box is its own adjoint
            mine.sub_(by_pixel, alpha=2 * scale * sign)
            theirs.add_(by_pixel, alpha=2 * scale * sign)
        return out, None, None, None, None


def _offsets(
    padded: Tensor, reach: int, radius: int, scale: float, nearness: float
) -> Iterator[tuple[Any, Tensor, Tensor, int]]:
    """(where the shifted images lie, weights (N, 1, H, W), here - there but for its sign, that sign) for each offset t.

    Two pixels weigh the same for each other: on a little more than the images, one computation serves t and -t.
    """
    height, width = (length - 2 * reach for length in padded.shape[2:])
    for i in range(reach + 1):
        for j in range(-reach if i else 0, reach + 1):
            right, left = max(j, 0), max(-j, 0)
            here = padded[..., reach - i : reach + height, reach - right : reach + left + width]
            there = padded[..., reach : reach + i + height, reach - left : reach + right + width]
            difference = here - there
            far = nearness * (i**2 + j**2) / (2 * radius + 1) ** 2  # which a box adds up again
            weight = _box(_exponent(difference, scale, far), radius).exp_()
            for sign, down, across in ((1, i, right), (-1, 0, left))[: 2 if i or j else 1]:
                row, column = reach + sign * i, reach + sign * j
                yield (
                    (..., slice(row, row + height), slice(column, column + width)),
                    weight[..., down : down + height - 2 * radius, across : across + width - 2 * radius],
                    difference[..., down : down + height, across : across + width],
                    sign,
                )


def _exponent(difference: Tensor, scale: float, constant: float) -> Tensor:
    """(N, 1, H, W): -scale times the squares summed over channels, - constant."""
    total = difference.new_full((), -constant)
    for channel in difference.split(1, 1):
        total = torch.addcmul(total, channel, channel, value=-scale)
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
