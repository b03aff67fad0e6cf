"""The same figure several times, over seeds or over folds of the images: its mean and its deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_local.core.errors import ConfigError
from robustbench_local.metrics.rates import Floats, Ints


@dataclass(frozen=True)
class Spread:
    """deviation: the sample's (n - 1 in its denominator), None of one value."""

    n: int
    mean: float
    deviation: float | None
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of one or more values; low and high are the least and the greatest."""
    n = len(values)
    deviation = float(np.std(values, ddof=1)) if n > 1 else None
    return Spread(n, float(np.mean(values)), deviation, float(min(values)), float(max(values)))


def folds(labels: Ints, ids: Ints, count: int, seed: int = 0) -> Ints:
    """(N,) the fold of each image, in 0 .. count - 1: each class is dealt out evenly, in an order drawn by the seed.

    Whatever the order of the images, the same ids make the same folds. ConfigError unless 2 <= count <= N.
    """
    if not 2 <= count <= len(labels):
        raise ConfigError(f"{count} folds of {len(labels)} images: there must be at least two, each with an image")
    shuffled = np.argsort(ids)[np.random.default_rng(seed).permutation(len(ids))]
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    found = np.empty(len(labels), dtype=np.int64)
    found[dealt] = np.arange(len(labels)) % count
    return found


def over_folds(shares: Floats, fold: Ints) -> Spread:
    """The spread over folds of the mean of shares (N,).

    A model is not trained anew here: a fold is a part of the images it is judged on, and since no verdict depends on
    the other images of its batch, judging the folds one by one would say the same.
    """
    return spread([float(shares[fold == k].mean()) for k in range(int(fold.max()) + 1)])
