"""Rates and their sampling intervals.

An accuracy under attack is an upper bound of robustness; its interval says how much that bound would move with other
images of the same kind (and, of a random model, with other draws), not how far the true robustness lies below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.95
ROUNDS = 4999  # resamples of a bootstrap
_ENOUGH = 10  # images on either side that a percentile needs: below, Wilson's interval, which is then the wider one


@dataclass(frozen=True)
class Rate:
    """A share in [0, 1], or a difference of two in [-1, 1], and the interval around it."""

    value: float
    low: float
    high: float


def wilson(k: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a rate of k successes in n trials (Wilson 1927), both ends in [0, 1].

    For a random model k is the sum of each image's share of survived draws and need not be whole. A share in
    [0, 1] varies at most as much as a coin of the same mean: the interval is then, if anything, too wide.
    DataError unless 0 <= k <= n and n >= 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise DataError(f"a rate of {k} in {n} trials: there must be at least one trial, and k in 0 .. n")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (k + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return (0.0 if k == 0 else middle - reach, 1.0 if k == n else middle + reach)


def cluster_bootstrap(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of the mean of values (N,), one per image: whole images are resampled, each with its draws.

    The draws of one image belong together, so the image is the unit; the spread of the images' means holds the spread
    over draws already, and resampling these as well would count it twice (Davison and Hinkley 1997, section 3.8). A
    resample is a multinomial count of the few values there are; its seed is fixed.
    """
    levels, counts = np.unique(np.asarray(values, dtype=np.float64).round(12), return_counts=True)
    n = int(counts.sum())
    means = np.random.default_rng(0).multinomial(n, counts / n, ROUNDS) @ levels / n
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def method(shares: npt.ArrayLike) -> str:
    """The interval that suits shares (N,): "Wilson", or "cluster bootstrap over images and their draws"."""
    values = np.asarray(shares, dtype=np.float64)
    whole = bool(np.isin(values, (0, 1)).all())
    total = float(values.sum())
    few = min(total, len(values) - total) < _ENOUGH
    return "Wilson" if whole or few else "cluster bootstrap over images and their draws"


def rate(shares: npt.ArrayLike, confidence: float = CONFIDENCE) -> Rate:
    """The mean of shares (N,) in [0, 1] with its sampling interval: 0 or 1 per image, or its share of draws.

    Random models get the cluster bootstrap, unless fewer than ten images' worth are robust or broken: then Wilson's.
    DataError where there is no image, or where a share lies outside [0, 1].
    """
    values = np.asarray(shares, dtype=np.float64)
    if len(values) == 0 or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"a rate of {len(values)} shares: there must be at least one image, and each share in [0, 1]")
    if method(values) == "Wilson":
        low, high = wilson(min(float(values.sum()), len(values)), len(values), confidence)
    else:
        low, high = cluster_bootstrap(values, confidence)
    return Rate(round(float(values.mean()), 12), low, high)  # as of all draws at once: no tie goes another way in print


def sidak(count: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of `count` independent intervals that hold all together with `confidence` (Sidak 1967).

    Classes, groups and folds share no image, so their rates are independent and this is exact.
    """
    return math.pow(confidence, 1 / max(1, count))


def simultaneous(groups: Sequence[npt.ArrayLike], confidence: float = CONFIDENCE) -> list[Rate]:
    """rate() of each of several disjoint sets of images; the intervals hold all together, by Sidak."""
    return [rate(shares, sidak(len(groups), confidence)) for shares in groups]
