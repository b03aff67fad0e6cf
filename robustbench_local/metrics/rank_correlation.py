"""Spearman's rank correlation, of many pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """(N,) in [-1, 1] of a and b (N, D): Pearson's correlation of their ranks (Spearman 1904), equal values sharing the
    mean of theirs. NaN where all values of either are equal, since nothing is ranked there.
    """
    x, y = (np.stack([_ranks(row) for row in each.reshape(len(each), -1)]) for each in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    found: Floats = np.divide((x * y).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)
    return found


def _ranks(values: npt.NDArray[Any]) -> Floats:
    """(D,) of values (D,), from 1."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place.ravel()]
    return ranks
