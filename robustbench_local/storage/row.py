"""What a row is: its fields and their types, its key, and a checksum over all of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustbench_local.core.errors import RobustBenchError, StoreError
from robustbench_local.core.oracle import Access
from robustbench_local.core.threat import ThreatModel
from robustbench_local.storage.shape import (
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
    wrong,
)

SCHEMA = 1  # raised when old rows can no longer be read as new ones

Row = dict[str, Any]


class OutdatedError(StoreError):
    """A record that is whole, for all that is known, but of another version of this package."""


def row_key(definition: Mapping[str, Any]) -> str:
    """The name of a cell: 24 hex digits of a sha256 over the schema and all that defines it.

    Neither the order of keys matters nor whether a whole number is written as 1 or 1.0. StoreError for what JSON
    cannot hold.
    """
    return _digest(plain({"schema": SCHEMA, "definition": definition}, exact=True), 24)


def sealed(record: Mapping[str, Any]) -> Row:
    """The record, plain, with its checksum: 16 hex digits of a sha256 over everything else in it."""
    record = plain({key: value for key, value in record.items() if key != "checksum"})
    return {**record, "checksum": _checksum(record)}


def written(record: Mapping[str, Any]) -> bytes:
    """A sealed record as its file holds it."""
    return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


def unsealed(content: bytes) -> Row:
    """The record that a file holds. StoreError where it was cut short or changed, OutdatedError for another version's.

    A record without a checksum is one of those: nothing tells whether it is as it was written.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise StoreError("it is no JSON: cut short or overwritten") from None
    if not isinstance(record, dict):
        raise StoreError("it is no JSON object: cut short or overwritten")
    if record.get("schema") != SCHEMA:
        raise OutdatedError(f"it has schema {record.get('schema')!r:.60}, not {SCHEMA}")
    if "checksum" not in record:
        raise OutdatedError("it has no checksum: an earlier version wrote it, and nothing tells if it was changed")
    try:
        if _checksum(record) != record["checksum"]:
            raise StoreError("its checksum is another: it was changed after it was written")
    except (ValueError, RecursionError):
        raise StoreError("it holds what no row can") from None
    return record


def row_of(content: bytes, key: str) -> Row:
    """The row of that key that a file holds. StoreError where it is damaged, another's or not as rows are."""
    row = unsealed(content)
    fault = wrong(row, _RECORD[row.get("status") == "ok"], "it")
    if fault is None and (row["key"] != key or row_key(row["definition"]) != key):
        fault = f"it is the row of {row_key(row['definition'])}"
    if fault is None and is_cell(row):
        fault = wrong(row, _CELL[row["status"] == "ok"], "it")
        if fault is None and row["status"] == "ok" and "corruption" in row["definition"]:
            fault = wrong(row["results"], _CORRUPTED, "results")
    if fault:
        raise StoreError(f"{fault}: it is not a row of that name")
    return row


def is_cell(row: Row) -> bool:
    """Whether it is of an attack on a model, as a grid's cells are."""
    return "attack" in row["definition"]


def plain(value: Any, exact: bool = False) -> Any:
    """value as JSON knows it. exact: whole floats become ints, NaN and infinities are refused, not null."""
    match value:
        case Mapping():
            return {str(name): plain(item, exact) for name, item in value.items()}
        case list() | tuple():
            return [plain(item, exact) for item in value]
        case np.generic():
            return plain(value.item(), exact)
        case float() if not math.isfinite(value) and not exact:
            return None
        case float() if math.isfinite(value) and exact and value.is_integer():
            return int(value)
        case float() if math.isfinite(value):
            return value
        case None | bool() | int() | str():
            return value
    kind = type(value).__name__
    raise StoreError(f"{value!r} ({kind}) has no place in a row: finite numbers, strings, lists, dicts only")


def _checksum(record: Mapping[str, Any]) -> str:
    return _digest({key: value for key, value in record.items() if key != "checksum"}, 16)


def _digest(value: Any, digits: int) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:digits]


def _threat(value: Any) -> bool:
    try:
        return text(value) and ThreatModel.parse(value, allow_large=True) is not None
    except RobustBenchError:
        return False


def _range(value: Any) -> bool:
    """Ids that follow each other: "0:500"."""
    ends = value.split(":") if text(value) else []
    return len(ends) == 2 and all(end.isdecimal() and len(end) < 20 for end in ends) and int(ends[0]) <= int(ends[1])


_RECORD = {
    good: {
        "key": text,
        "created": text,
        "status": one_of("ok", "error"),
        "definition": mapping,
        "arrays": all_of(text),
        "grid?": text,
        "environment?": all_of(either(text, whole)),
        **({"results": {"n": count}} if good else {"error": {"type": text, "message": text}}),
    }
    for good in (True, False)
}

_DEFINITION = {
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
    "attack_under?": {"name": text, "settings": {"severity": whole}},
}

_INTERVAL = (share, share)

_RESULTS = {
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

_CORRUPTED = {"corruption_accuracy": share, "corruption_interval": _INTERVAL}

_CELL = {
    good: {
        "definition": _DEFINITION,
        **({"results": _RESULTS, "arrays": dict.fromkeys(("labels", "ids", "clean", "robust"), text)} if good else {}),
    }
    for good in (True, False)
}
