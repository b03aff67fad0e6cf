"""What a row says of a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustbench_local.core import trace
from robustbench_local.metrics.calibration import calibration, confidence
from robustbench_local.metrics.classification import classification
from robustbench_local.metrics.curves import nearest, quantiles
from robustbench_local.metrics.detection import detection
from robustbench_local.metrics.groups import by_class, largest_gap, rates_of
from robustbench_local.metrics.rates import Floats, Ints, method, rate

if TYPE_CHECKING:
    from robustbench_local.core.verdict import Verdict

_DIGITS = 5  # of what is added for reading: rows are kept in version control


def per_class(labels: Ints, clean: Floats, robust: Floats, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracies of each class that occurs, the robust one with an interval; the intervals hold all together.

    labels (N,); clean, robust (N,) bits or shares.
    """
    members = by_class(labels, classes)
    rates = rates_of(robust, members)
    return [
        {
            "class": name,
            "n": int(own.sum()),
            "clean": float(clean[own].mean()),
            "robust": rates[name].value,
            "robust_interval": [rates[name].low, rates[name].high],
        }
        for name, own in members.items()
    ]


def shares(bits: Tensor, of_draws: Tensor | None) -> Floats:
    """(N,): 0 or 1 of a fixed model's bits (N,), or the share of a random model's draws (N, R)."""
    return _array(bits if of_draws is None else of_draws.cpu().double().mean(1))


def summarise(verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    """The results of a row: accuracies in [0, 1] with 95 % intervals, per class, cost, flags.

    intervals says of what kind they are. attack_success_rate is over the images that were right, `of` of them.
    classification and calibration are of the clean and of the attacked images, adversarial_confidence of the broken
    images. largest_gap names the classes that are most and least robust. distance_median is over the broken
    images, in units of the threat's norm, None where there is none; of minimum-norm attacks, distance is over
    all that were right, infinite (None) where the attack did not succeed. queries_to_success are the forward passes
    of the broken images, of attacks that stop there. corruption_ figures are there for corruptions only, detector for
    detectors. forwards_mean and backwards_mean are passes per image, prepared_ those spent in all before any image
    was judged. notes are means over the images that have one. trace: quartiles, over the robust images, of the
    best objective after so many steps; None where there is none or the attack tells none.
    """
    clean, robust = shares(verdict.clean, verdict.clean_bits), shares(verdict.robust, verdict.bits)
    labels = verdict.labels.cpu().numpy()
    right, broken = _bits(verdict.clean), _bits(verdict.clean & ~verdict.robust)
    distance = _array(verdict.distance)
    clean_rate, robust_rate = rate(clean), rate(robust)
    scores = {"clean": _array(verdict.clean_scores), "attacked": _array(verdict.scores)}
    members = by_class(labels, classes)
    return {
        "n": len(labels),
        "classes": len(classes),
        "stochastic": verdict.bits is not None,
        "intervals": _kind(robust, len(members)),
        "clean_accuracy": verdict.clean_accuracy,
        "clean_interval": (clean_rate.low, clean_rate.high),
        "robust_accuracy": verdict.robust_accuracy,
        "robust_interval": (robust_rate.low, robust_rate.high),
        "robust_accuracy_8bit": verdict.robust_accuracy_8bit,
        **_corruption(verdict),
        **_detector(labels, scores, distance, verdict),
        "attack_success_rate": _short(_success(robust[right])),
        "per_class": _short(per_class(labels, clean, robust, classes)),
        "largest_gap": _short(_gap(robust, members)),
        "classification": _short({name: classification(labels, each, len(classes)) for name, each in scores.items()}),
        "calibration": _short({name: calibration(labels, each) for name, each in scores.items()}),
        "adversarial_confidence": _short(_confidence(scores["attacked"][broken])),
        "forwards_mean": float(verdict.forwards.cpu().double().mean()),
        "backwards_mean": float(verdict.backwards.cpu().double().mean()),
        "prepared_forwards": verdict.prepared_forwards,
        "prepared_backwards": verdict.prepared_backwards,
        "checked_forwards": verdict.checked_forwards,
        "judged_forwards": verdict.judged_forwards,
        "notes": {name: float(values.cpu().double().nanmean()) for name, values in trace.others(verdict.notes).items()},
        "trace": _short(_trace(verdict)),
        "distance_median": float(np.quantile(distance[broken], 0.5, method="lower")) if broken.any() else None,
        "distance": _short(_distances(verdict, distance, clean)),
        "queries_to_success": _queries(verdict, broken),
        "seconds": verdict.seconds,
        "flags": list(verdict.flags),
    }


def _corruption(verdict: Verdict) -> dict[str, Any]:
    if verdict.corrupted is None:
        return {}
    right = rate(shares(verdict.corrupted, verdict.bits))
    return {"corruption_accuracy": verdict.corruption_accuracy, "corruption_interval": (right.low, right.high)}


def _detector(labels: Ints, scores: dict[str, Floats], distance: Floats, verdict: Verdict) -> dict[str, Any]:
    if not verdict.detects:
        return {}
    return {"detector": _short(detection(labels, scores["clean"], scores["attacked"], distance > 0))}


def _kind(robust: Floats, classes: int) -> str:
    return (
        f"95 % sampling intervals of an upper bound ({method(robust)});"
        f" per class simultaneous over {classes} classes (Sidak)"
    )


def _success(robust: Floats) -> dict[str, Any] | None:
    if not len(robust):
        return None
    success = rate(1 - robust)
    return {"of": len(robust), "rate": success.value, "interval": [success.low, success.high]}


def _gap(robust: Floats, members: dict[str, npt.NDArray[np.bool_]]) -> dict[str, Any] | None:
    found = largest_gap(rates_of(robust, members))
    if found is None:
        return None
    gap = found.gap
    return {"best": found.best, "worst": found.worst, "robust": gap.value, "interval": [gap.low, gap.high]}


def _confidence(scores: Floats) -> dict[str, Any] | None:
    """Of the broken images, in the answers they got; None where there is none, or none of them got a number."""
    found = confidence(scores)
    found = found[~np.isnan(found)]
    return {"n": len(found), "mean": found.mean(), "median": np.median(found)} if len(found) else None


def _distances(verdict: Verdict, distance: Floats, clean: Floats) -> dict[str, Any] | None:
    if verdict.success is None:
        return None
    return quantiles(nearest(distance, _array(verdict.success), clean)[_bits(verdict.clean)])


def _queries(verdict: Verdict, broken: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    """None of random models and minimum-norm attacks, which go on after a success."""
    if verdict.bits is not None or verdict.success is not None or not broken.any():
        return None
    return quantiles(_array(verdict.forwards)[broken])


def _trace(verdict: Verdict) -> dict[str, Any] | None:
    known = trace.of(verdict.notes)
    if not known or not verdict.robust.any():
        return None
    best = np.stack([_array(values[verdict.robust]) for values in known.values()])
    best = best[:, np.isfinite(best).all(0)]
    if not best.shape[1]:
        return None
    low, median, high = np.quantile(best, (0.25, 0.5, 0.75), axis=1).tolist()
    return {"images": best.shape[1], "steps": list(known), "low": low, "median": median, "high": high}


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.cpu().double().numpy())


def _bits(tensor: Tensor) -> npt.NDArray[np.bool_]:
    return np.asarray(tensor.cpu().numpy())


def _short(value: Any) -> Any:
    """With every fraction rounded, in lists and dicts of them."""
    match value:
        case dict():
            return {name: _short(each) for name, each in value.items()}
        case list():
            return [_short(each) for each in value]
        case float():
            return round(float(value), _DIGITS)
    return value
