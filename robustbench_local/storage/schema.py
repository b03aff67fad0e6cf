"""What a row holds: its fields, for whoever reads the code, and their shapes, for what is read from a file."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from robustbench_local.core.access import Access
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.storage.shape import (
    Shape,
    all_of,
    count,
    difference,
    either,
    flag,
    mapping,
    maybe,
    number,
    one_of,
    share,
    size,
    text,
    whole,
)


class Definition(TypedDict):
    """What was measured: data, deployed model, attack, threat, and how it was judged. It makes the row's key."""

    data: str
    split: str
    data_digest: str
    ids: str | list[int]  # "0:500" where they follow each other
    model: str
    weights_digest: str | None
    defense: str
    defense_settings: dict[str, Any]
    defense_version: int | list[int]
    attack: str
    attack_settings: dict[str, Any]
    attack_version: int
    access: str
    threat: str
    eps: float
    seed: int
    count: str
    precision: str
    targets: str | int | None
    budget: int | None
    eot: int
    draws: int
    adaptive: NotRequired[bool]
    corruption: NotRequired[str]
    attacker_digest: NotRequired[str]
    attack_sources: NotRequired[dict[str, str]]
    attack_under: NotRequired[dict[str, Any]]
    transform: NotRequired[dict[str, Any]]
    behaviour_digest: NotRequired[str]
    model_about: NotRequired[dict[str, Any]]
    variant: NotRequired[str]


class Certified(TypedDict):
    """What a certificate says. confidence: of each image by itself, in (0, 1), None of a proof; draws: what it took."""

    n: int
    certified_accuracy: float
    certified_interval: list[float]
    confidence: float | None
    draws: int | None
    seconds: float


class Results(TypedDict):
    """What was found; metrics/summary.py says what each figure means. Accuracies lie in [0, 1]."""

    n: int
    stochastic: bool
    clean_accuracy: float
    clean_interval: list[float]
    robust_accuracy: float
    robust_interval: list[float]
    robust_accuracy_8bit: float
    forwards_mean: float
    backwards_mean: float
    distance_median: float | None
    seconds: float
    flags: list[str]
    per_class: list[dict[str, Any]]
    classes: NotRequired[int]
    intervals: NotRequired[str]
    prepared_forwards: NotRequired[int]
    prepared_backwards: NotRequired[int]
    checked_forwards: NotRequired[int]
    judged_forwards: NotRequired[int]
    attack_success_rate: NotRequired[dict[str, Any] | None]
    largest_gap: NotRequired[dict[str, Any] | None]
    classification: NotRequired[dict[str, dict[str, float | None]]]
    calibration: NotRequired[dict[str, dict[str, float | None]]]
    adversarial_confidence: NotRequired[dict[str, float] | None]
    notes: NotRequired[dict[str, float | None]]
    distance: NotRequired[dict[str, float | None] | None]
    queries_to_success: NotRequired[dict[str, float | None] | None]
    detector: NotRequired[dict[str, float | None]]
    trace: NotRequired[dict[str, Any] | None]
    corruption_accuracy: NotRequired[float]
    corruption_interval: NotRequired[list[float]]


def row_fault(record: dict[str, Any]) -> str | None:
    """What of a record is not as rows are; None where all of it is."""
    good = record.get("status") == "ok"
    fault = _RECORD[good].wrong(record, "it")
    if fault is None and "attack" in record["definition"]:
        fault = _CELL[good].wrong(record, "it")
        if fault is None and good and "corruption" in record["definition"]:
            fault = _CORRUPTED.wrong(record["results"], "results")
    elif fault is None and "certificate" in record["definition"]:
        fault = _CERTIFICATE[good].wrong(record, "it")
    return fault


def _threat(value: Any) -> bool:
    try:
        return text(value) and ThreatModel.parse(value, allow_large=True) is not None
    except RobustBenchError:
        return False


def _range(value: Any) -> bool:
    """Ids that follow each other: "0:500"."""
    ends = value.split(":") if text(value) else []
    return len(ends) == 2 and all(end.isdecimal() and len(end) < 20 for end in ends) and int(ends[0]) <= int(ends[1])


RECORD = {
    good: {
        "key": text,
        "created": text,
        "status": one_of("ok", "error"),
        "definition": mapping,
        "arrays": all_of(text),
        "grid?": text,
        "environment?": all_of(either(text, whole)),
        "families?": [text],
        "minimises?": flag,
        "origin?": text,
        "start?": text,
        **({"results": {"n": count}} if good else {"error": {"type": text, "message": text}}),
    }
    for good in (True, False)
}

DEFINITION = {
    "data": text,
    "split": text,
    "data_digest": text,
    "ids": either(_range, [whole]),
    "model": text,
    "weights_digest": maybe(text),
    "defense": text,
    "defense_settings": mapping,
    "defense_version": either(whole, [whole]),
    "attack": text,
    "attack_settings": mapping,
    "attack_version": whole,
    "access": one_of(*(access.name.lower() for access in Access)),
    "threat": _threat,
    "eps": size,
    "seed": whole,
    "count": text,
    "precision": text,
    "targets": maybe(either(text, whole)),
    "budget": maybe(whole),
    "eot": whole,
    "draws": whole,
    "adaptive?": flag,
    "corruption?": text,
    "attacker_digest?": text,
    "attack_sources?": all_of(text),
    "transform?": mapping,
    "attack_under?": {"name": text, "settings": {"severity": whole}, "benchmark?": text},
    "behaviour_digest?": text,
    "model_about?": mapping,
    "variant?": text,
}

_INTERVAL = (share, share)

RESULTS = {
    "n": count,
    "stochastic": flag,
    "clean_accuracy": share,
    "clean_interval": _INTERVAL,
    "robust_accuracy": share,
    "robust_interval": _INTERVAL,
    "robust_accuracy_8bit": share,
    "forwards_mean": size,
    "backwards_mean": size,
    "distance_median": maybe(size),
    "seconds": size,
    "flags": [text],
    "per_class": [{"class": text, "n": count, "clean": share, "robust": share, "robust_interval?": _INTERVAL}],
    "classes?": count,
    "intervals?": text,
    "prepared_forwards?": count,
    "prepared_backwards?": count,
    "checked_forwards?": count,
    "judged_forwards?": count,
    "attack_success_rate?": maybe({"of": count, "rate": share, "interval": _INTERVAL}),
    "largest_gap?": maybe({"best": text, "worst": text, "robust": difference, "interval": (difference, difference)}),
    "classification?": {"clean": all_of(maybe(number)), "attacked": all_of(maybe(number))},
    "calibration?": {"clean": all_of(maybe(number)), "attacked": all_of(maybe(number))},
    "adversarial_confidence?": maybe({"n": count, "mean": share, "median": share}),
    "notes?": all_of(maybe(number)),
    "distance?": maybe(all_of(maybe(size))),
    "queries_to_success?": maybe(all_of(maybe(size))),
    "detector?": all_of(maybe(number)),
    "trace?": maybe({"images": count, "steps": [whole], "low": [number], "median": [number], "high": [number]}),
}

CORRUPTED = {"corruption_accuracy": share, "corruption_interval": _INTERVAL}

_OF_MODELS = (  # what a definition says of the deployed model and of the images, whatever was done with them
    *("data", "split", "data_digest", "ids", "model", "weights_digest", "defense", "defense_settings"),
    *(
        "defense_version",
        "threat",
        "eps",
        "transform?",
        "attack_under?",
        "behaviour_digest?",
        "model_about?",
        "variant?",
    ),
)
CERTIFIED = {
    "n": count,
    "certified_accuracy": share,
    "certified_interval": _INTERVAL,
    "confidence": maybe(share),
    "draws": maybe(count),
    "seconds": size,
}
CERTIFICATE = {
    good: {
        "definition": {
            **{name: DEFINITION[name] for name in _OF_MODELS},
            "certificate": text,
            "certificate_version": whole,
        },
        **({"results": CERTIFIED, "arrays": dict.fromkeys(("labels", "ids", "certified"), text)} if good else {}),
    }
    for good in (True, False)
}

CELL = {
    good: {
        "definition": DEFINITION,
        **({"results": RESULTS, "arrays": dict.fromkeys(("labels", "ids", "clean", "robust"), text)} if good else {}),
    }
    for good in (True, False)
}

_RECORD, _CELL, _CERTIFICATE = (
    {good: Shape(shape) for good, shape in shapes.items()} for shapes in (RECORD, CELL, CERTIFICATE)
)
_CORRUPTED = Shape(CORRUPTED)
