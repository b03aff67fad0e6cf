"""Pieces of a batch that stay in a CPU's caches, or in its memory."""

from __future__ import annotations

import torch


def blocks(count: int, each: int, most: int, device: torch.device) -> list[slice]:
    """0 .. count - 1 in slices of at most `most` values, of which a sample has `each`; on other devices in one.

    Where a pass over memory costs more than the arithmetic.
    """
    size = max(1, most // max(each, 1)) if device.type == "cpu" else max(1, count)
    return [slice(start, min(start + size, count)) for start in range(0, max(1, count), size)]


def at_once(most: int, each: int, values: int = 2**20) -> int:
    """How many of a sample's own images to make at a time: `most`, or fewer of large ones, which have `each` values."""
    return max(1, min(most, values // max(each, 1)))
