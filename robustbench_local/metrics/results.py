"""What a row says of a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustbench_local.metrics.rates import wilson

if TYPE_CHECKING:
    from robustbench_local.judge import Verdict


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


def summarise(verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    """The results of a row: accuracies in [0, 1] with 95 % intervals, per class, cost, flags.

    distance_median is over the images that were right and fell, in units of the threat's norm, None where none
    did; forwards_mean and backwards_mean are passes per image, prepared_ those spent in all before any image was
    judged. notes are means over the images that have one.
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
