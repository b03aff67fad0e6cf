"""Whether a model is as often right as it is confident; scores (N, K) are log-probabilities."""

from __future__ import annotations

import numpy as np

from robustbench_local.metrics.rates import Floats, Ints

BINS = 15


def calibration(labels: Ints, scores: Floats, bins: int = BINS) -> dict[str, float | None]:
    """ece, nll, brier, and the mean confidence; None where no score is a number. Images of NaN scores are left out.

    ece     expected calibration error of the highest class, in equal bins (Naeini et al. 2015, Guo et al. 2017)
    nll     mean negative log-likelihood of the true class, in nats; infinite where one had probability 0
    brier   mean squared distance from the true class's one-hot vector, in [0, 2] (Brier 1950)

    A detector's "reject" is a class that is never true: the more confident, the worse.
    """
    known = ~np.isnan(scores).any(1)
    if not known.any():
        return dict.fromkeys(("ece", "nll", "brier", "confidence"))
    labels, scores = labels[known], scores[known]
    chances = np.exp(scores)
    true = chances[np.arange(len(labels)), labels]
    top = chances.max(1)
    return {
        "ece": ece(top, true == top, bins),
        "nll": float(-scores[np.arange(len(labels)), labels].mean()),
        "brier": float(((chances**2).sum(1) - 2 * true + 1).mean()),
        "confidence": float(top.mean()),
    }


def ece(confidence: Floats, right: np.typing.NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean over images of |accuracy - mean confidence| of their bin; bins are ((b - 1) / bins, b / bins]."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - confidence, bins)  # per bin: images x (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def confidence(scores: Floats) -> Floats:
    """(N,) probability of the class that was answered, NaN where a score is."""
    found: Floats = np.exp(scores.max(1))
    return found
