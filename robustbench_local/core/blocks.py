"""Pieces of a batch that stay in a CPU's caches, or in its memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CACHED = 2**16  # values of one tensor: some such tensors together stay in a core's own cache
SPLIT = (
    2**15
)  # values of a sample from which torch splits the sum of one sample alone, and of no several, among threads


def blocks(count: int, each: int, most: int, device: torch.device) -> list[slice]:
    """0 .. count - 1 in slices of at most `most` values, of which a sample has `each`; on other devices in one.

    Where a pass over memory costs more than the arithmetic.
    """
    size = max(1, most // max(each, 1)) if device.type == "cpu" else max(1, count)
    return [slice(start, min(start + size, count)) for start in range(0, max(1, count), size)]


def at_once(most: int, each: int, values: int = 2**20) -> int:
    """How many of a sample's own images to make at a time: `most`, or fewer of large ones, which have `each` values."""
    return max(1, min(most, values // max(each, 1)))


def in_blocks(make: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """make(*tensors), all (N, ...), a block of samples at a time on a CPU: for what treats each sample by itself.

    The result is the same to the last bit, for a block holds either all samples or several of less than SPLIT values.
    """
    count, each = len(tensors[0]), math.prod(tensors[0].shape[1:])
    rows = blocks(count, each, CACHED if each < SPLIT else max(1, count * each), tensors[0].device)
    if len(rows) == 1:
        return make(*tensors)
    return torch.cat([make(*(tensor[some] for tensor in tensors)) for some in rows])
