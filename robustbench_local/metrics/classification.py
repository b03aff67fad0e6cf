"""What class the images were given: precision, recall, F1, ROC-AUC, confusion matrix; on clean or attacked images.

scores (N, K) are log-probabilities; of a detector (N, K + 1), the last being "reject". Labels lie in 0 .. K - 1, and
answers in 0 .. K, where K is no class: rejected, NaN, or a tie of the highest scores.
"""

from __future__ import annotations

import numpy as np

from robustbench_local.metrics.rates import Floats, Ints


def answers(scores: Floats, classes: int) -> Ints:
    """(N,) the class of the highest score; `classes` where that is none."""
    best = scores.max(1)  # NaN where any score is
    alone = (scores == best[:, None]).sum(1) == 1
    found: Ints = np.where(alone, np.minimum(np.nan_to_num(scores, nan=-np.inf).argmax(1), classes), classes)
    return found


def confusion(labels: Ints, given: Ints, classes: int) -> Ints:
    """(K, K + 1) counts: a row per true class, a column per answer, the last for no class."""
    counts = np.bincount(labels * (classes + 1) + given, minlength=classes * (classes + 1))
    return counts.astype(np.int64).reshape(classes, classes + 1)


def classification(labels: Ints, scores: Floats, classes: int) -> dict[str, float | None]:
    """averages() of the answers, and auc_macro: each class against the rest, the mean over classes, or None."""
    areas = auc(labels, scores[:, :classes])
    areas = areas[~np.isnan(areas)]
    matrix = confusion(labels, answers(scores, classes), classes)
    return {**averages(matrix), "auc_macro": float(areas.mean()) if len(areas) else None}


def averages(matrix: Ints) -> dict[str, float]:
    """Precision, recall and F1 from counts (K, K + 1), and the share of images given no class.

    macro: the mean over the classes that have an image; a class that is never answered has precision 0. micro: over
    all images, those given no class counting as missed but not as wrongly answered (without any, all three are the
    accuracy).
    """
    right, of_class, answered = matrix.diagonal(), matrix.sum(1), matrix[:, :-1].sum(0)
    there = of_class > 0
    precision, recall = _share(right, answered), _share(right, of_class)
    f1 = _share(2 * right, answered + of_class)
    total, hits = int(of_class.sum()), int(right.sum())
    return {
        "precision_macro": float(precision[there].mean()),
        "recall_macro": float(recall[there].mean()),
        "f1_macro": float(f1[there].mean()),
        "precision_micro": hits / max(1, int(answered.sum())),
        "recall_micro": hits / total,
        "f1_micro": 2 * hits / (int(answered.sum()) + total),
        "no_class": 1 - int(answered.sum()) / total,
    }


def auc(labels: Ints, scores: Floats) -> Floats:
    """(K,) area under the ROC curve of each class against the rest (Hanley and McNeil 1982), NaN where a class has no
    image or all of them. A NaN score is the model's error: it ranks last where it should be first, and first elsewhere.
    """
    ks = np.arange(scores.shape[1])
    own = labels[:, None] == ks
    known = np.where(np.isnan(scores), np.where(own, -np.inf, np.inf), scores)
    ranks = np.stack([_ranks(column) for column in known.T], axis=1)
    count = own.sum(0)
    pairs = count * (len(labels) - count)
    above = (ranks * own).sum(0) - count * (count + 1) / 2
    found: Floats = np.divide(above, pairs, out=np.full(len(ks), np.nan), where=pairs > 0)
    return found


def _ranks(values: Floats) -> Floats:
    """Of each value (N,), from 1 for the smallest; equal ones share the mean of theirs."""
    ordered = np.sort(values)
    found: Floats = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
    return found


def _share(part: Ints, whole: Ints) -> Floats:
    found: Floats = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return found
