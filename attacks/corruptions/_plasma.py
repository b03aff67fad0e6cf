"""Clouds: a height map from the diamond-square algorithm (Fournier, Fussell and Carpenter 1982)."""

from __future__ import annotations

from torch import Tensor

from robustbench_local.core.draws import Draws

SIDE = 32  # of the smallest map, as for CIFAR-10-C: smaller images are cut from it


def plasma(size: int, fall: float, draws: Draws) -> Tensor:
    """(N, size, size) in [0, 1], each map spanning all of it; size is a power of two, and the map repeats itself.

    A point is the mean of the four around it and a uniform number, of an amplitude that every halving of the distance
    divides by `fall`.
    """
    noise = 2 * draws.uniform(size * size - 1) - 1
    map, amplitude = noise.new_zeros(len(noise), 1, 1), 1.0
    while (side := map.shape[1]) < size:
        fresh, noise = noise.split([3 * side * side, noise.shape[1] - 3 * side * side], 1)
        middles, across, down = (fresh * amplitude).view(-1, 3, side, side).unbind(1)
        below, beside = map + map.roll(-1, 1), map + map.roll(-1, 2)
        middles = middles + (below + below.roll(-1, 2)) / 4
        finer = map.new_empty(len(map), 2 * side, 2 * side)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2] = map, middles
        finer[:, ::2, 1::2] = across + (beside + middles + middles.roll(1, 1)) / 4
        finer[:, 1::2, ::2] = down + (below + middles + middles.roll(1, 2)) / 4
        map, amplitude = finer, amplitude / fall
    return spread(map)


def spread(map: Tensor) -> Tensor:
    """map (N, H, W), each moved and scaled to span [0, 1]."""
    low, high = map.amin((1, 2), keepdim=True), map.amax((1, 2), keepdim=True)
    return (map - low) / (high - low)


def clouds(x: Tensor, fall: float, draws: Draws, size: int = SIDE) -> Tensor:
    """(N, 1, H, W): the corner of a plasma as large as x needs, or of that size at least."""
    height, width = x.shape[2:]
    side = 1 << (max(height, width, size) - 1).bit_length()
    return plasma(side, fall, draws)[:, None, :height, :width]
