"""Clouds: a height map from the diamond-square algorithm (Fournier, Fussell and Carpenter 1982)."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.draws import Draws


def plasma(size: int, decay: float, draws: Draws) -> Tensor:
    """(N, size, size) in [0, 1], each map spanning all of it; size is a power of two, and the map repeats itself.

    A point is the mean of the four around it and a uniform number, of an amplitude that every halving of the distance
    divides by decay.
    """
    noise = 2 * draws.uniform(size, size) - 1
    map = torch.zeros_like(noise)
    step, amplitude = size, 1.0
    while step >= 2:
        half = step // 2
        middles, edges_across, edges_down = (
            (slice(None), slice(half, None, step), slice(half, None, step)),
            (slice(None), slice(None, None, step), slice(half, None, step)),
            (slice(None), slice(half, None, step), slice(None, None, step)),
        )
        corners = map[:, ::step, ::step]
        beside = corners + corners.roll(-1, 1)
        map[middles] = (beside + beside.roll(-1, 2)) / 4 + amplitude * noise[middles]
        inner = map[middles]
        map[edges_across] = (corners + corners.roll(-1, 2) + inner + inner.roll(1, 1)) / 4 + (
            amplitude * noise[edges_across]
        )
        map[edges_down] = (corners + corners.roll(-1, 1) + inner + inner.roll(1, 2)) / 4 + amplitude * noise[edges_down]
        step, amplitude = half, amplitude / decay
    return spread(map)


def spread(map: Tensor) -> Tensor:
    """map (N, H, W), each moved and scaled to span [0, 1]."""
    low, high = map.amin((1, 2), keepdim=True), map.amax((1, 2), keepdim=True)
    return (map - low) / (high - low)


def clouds(x: Tensor, decay: float, draws: Draws, size: int = 0) -> Tensor:
    """(N, 1, H, W): a plasma as large as x needs, or of that size at least."""
    height, width = x.shape[2:]
    side = 1 << (max(height, width, size) - 1).bit_length()
    return plasma(side, decay, draws)[:, None, :height, :width]
