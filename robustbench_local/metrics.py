"""Rates with their intervals, per class and over a whole verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustbench_local.errors import DataError

if TYPE_CHECKING:
    from robustbench_local.judge import Verdict


def wilson(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
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


def per_class(labels: Tensor, clean: Tensor, robust: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracies of each class that occurs. labels (N,) int64; clean, robust (N,) bool or shares."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    sums = [torch.bincount(labels, bits.double(), len(classes)).tolist() for bits in (clean, robust)]
    return [
        {"class": name, "n": n, "clean": right / n, "robust": standing / n}
        for name, n, right, standing in zip(classes, counts, *sums, strict=True)
        if n
    ]


def shares(bits: Tensor, of_draws: Tensor | None) -> Tensor:
    """(N,) float64: 0 or 1 of a fixed model's bits (N,), or the share of a random model's draws (N, R)."""
    return bits.double() if of_draws is None else of_draws.double().mean(1)


def _corruption(verdict: Verdict) -> dict[str, Any]:
    if verdict.corrupted is None:
        return {}
    standing = shares(verdict.corrupted, verdict.bits)
    return {
        "corruption_accuracy": verdict.corruption_accuracy,
        "corruption_interval": wilson(float(standing.sum()), len(standing)),
    }


def summarise(verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    """The results of a row: accuracies in [0, 1] with 95 % intervals, per class, cost, flags.

    distance_median is over the images that were right and fell, in units of the threat's norm, None where none
    did; corruption_ figures are there for corruptions only; forwards_mean and backwards_mean are passes per image,
    prepared_ those spent in all before any image was judged. notes are means over the images that have one.
    """
    clean, robust = shares(verdict.clean, verdict.clean_bits), shares(verdict.robust, verdict.bits)
    n = len(verdict.labels)
    fell = verdict.distance[verdict.clean & ~verdict.robust]
    return {
        "n": n,
        "stochastic": verdict.bits is not None,
        "clean_accuracy": verdict.clean_accuracy,
        "clean_interval": wilson(float(clean.sum()), n),
        "robust_accuracy": verdict.robust_accuracy,
        "robust_interval": wilson(float(robust.sum()), n),
        "robust_accuracy_8bit": verdict.robust_accuracy_8bit,
        **_corruption(verdict),
        "per_class": per_class(verdict.labels, clean, robust, classes),
        "forwards_mean": float(verdict.forwards.double().mean()),
        "backwards_mean": float(verdict.backwards.double().mean()),
        "prepared_forwards": verdict.prepared_forwards,
        "prepared_backwards": verdict.prepared_backwards,
        "notes": {name: float(values.double().nanmean()) for name, values in verdict.notes.items()},
        "distance_median": float(fell.double().median()) if len(fell) else None,
        "seconds": verdict.seconds,
        "flags": list(verdict.flags),
    }
