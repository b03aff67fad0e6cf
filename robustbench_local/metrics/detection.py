"""What a detector is worth in one cell: how well it tells adversarial images from clean ones.

scores (N, K + 1) are logits or log-probabilities, the last of them the rejection's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.metrics.classification import auc
from robustbench_local.metrics.rates import Floats, Ints


def suspicion(scores: Floats) -> Floats:
    """(N,): above 0 where the image is rejected."""
    found: Floats = scores[:, -1] - scores[:, :-1].max(1)
    return found


def detection(labels: Ints, clean: Floats, attacked: Floats, changed: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of a detector by its scores of clean and of attacked images, rates in [0, 1]; changed (N,) bool.

    adversarial: how many changed images the classifier, asked alone, takes for another class; whether the detector let
    them pass does not matter. detection_rate: the share of these that is rejected. roc_auc: the chance that one of
    these looks more suspicious than a clean image. Both are None where there are none. false_positive_rate: the share
    of clean images that is rejected.
    """
    usual, caught = suspicion(clean), suspicion(attacked)[changed & (attacked[:, :-1].argmax(1) != labels)]
    return {
        "adversarial": len(caught),
        "detection_rate": float((caught > 0).mean()) if len(caught) else None,
        "roc_auc": roc_auc(usual, caught) if len(caught) else None,
        "false_positive_rate": float((usual > 0).mean()),
    }


def roc_auc(clean: Floats, caught: Floats) -> float:
    """P(caught > clean) + P(caught = clean) / 2; a NaN speaks against the detector, whichever side it is on."""
    adversarial = np.repeat([0, 1], [len(clean), len(caught)])
    values = np.concatenate([clean, caught])
    return float(auc(adversarial, np.stack([-values, values], 1))[1])
