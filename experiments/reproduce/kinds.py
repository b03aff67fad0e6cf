"""What a figure can be of: how each kind is read off a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]
Share = tuple[float, float]  # in [0, 1], and the images that it is a share of


def pooled(kind: str, rows: Iterable[Results]) -> Share | None:
    """The kind's share over the results of several rows together; None where they hold no image for it.

    Rows share their images, and a mean of an image's 0s and 1s varies at most as one of them: what the share is
    certain by is as many images as one row has.
    """
    found = [KINDS[kind](results) for results in rows]
    total = sum(count for _, count in found)
    if not total:
        return None
    return sum(share * count for share, count in found) / total, max(count for _, count in found)


def _clean(results: Results) -> Share:
    return results["clean_accuracy"], results["n"]


def _robust(results: Results) -> Share:
    return results["robust_accuracy"], results["n"]


def _robust_among_correct(results: Results) -> Share:
    right = results["clean_accuracy"] * results["n"]
    return (results["robust_accuracy"] / results["clean_accuracy"] if right else 0.0), right


def _success(results: Results) -> Share:
    robust, right = _robust_among_correct(results)
    return 1 - robust, right


def _attacked(results: Results) -> Share:
    right = results["clean_accuracy"] * results["n"]
    under = results["classification"]["attacked"]["recall_micro"]  # what was wrong before is wrong here as well
    return (min(1.0, under / results["clean_accuracy"]) if right else 0.0), right


def _corrupted(results: Results) -> Share:
    return results["corruption_accuracy"], results["n"]


def _certified(results: Results) -> Share:
    return results["certified_accuracy"], results["n"]


def _detected(results: Results) -> Share:
    found = results["detector"]
    return found["detection_rate"] or 0.0, found["adversarial"]


def _false_positives(results: Results) -> Share:
    return results["detector"]["false_positive_rate"], results["n"]


def _roc_auc(results: Results) -> Share:
    # a mean over pairs is as certain as one over disjoint pairs (Hoeffding 1963, section 5)
    found = results["detector"]
    return found["roc_auc"] or 0.0, min(found["adversarial"], results["n"])


KINDS: dict[str, Callable[[Results], Share]] = {
    "clean": _clean,  # accuracy
    "robust": _robust,  # accuracy
    "robust_among_correct": _robust_among_correct,  # robust among the images that were right
    "success": _success,  # of the attack, among the images that were right
    "attacked": _attacked,  # under a targeted attack still given their true class, among the images that were right
    "corrupted": _corrupted,  # accuracy on corrupted images
    "certified": _certified,  # accuracy within a radius
    "detected": _detected,  # among the adversarial images that the classifier alone takes for another class
    "false_positives": _false_positives,  # among clean images
    "roc_auc": _roc_auc,  # of adversarial against clean images
}
