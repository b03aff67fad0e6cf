"""Records with a checksum over all of them: what no row and no audit kept beside rows is without."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustbench_local.core.errors import StoreError

SCHEMA = 1  # raised when old records can no longer be read as new ones

Record = dict[str, Any]
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class OutdatedError(StoreError):
    """A record that is whole, for all that is known, but of another version of this package."""


def sealed(record: Mapping[str, Any]) -> Record:
    """The record, plain, with its checksum: 16 hex digits of a sha256 over everything else in it."""
    record = plain({key: value for key, value in record.items() if key != "checksum"})
    return {**record, "checksum": _checksum(record)}


def written(record: Mapping[str, Any]) -> bytes:
    """A sealed record as its file holds it."""
    return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


def unsealed(content: bytes) -> Record:
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
    return digest({key: value for key, value in record.items() if key != "checksum"}, 16)


def digest(value: Any, digits: int) -> str:
    """So many hex digits of the sha256 of a plain value. ValueError for NaN and infinities."""
    return digest_of(canonical(value), digits)


def canonical(value: Any) -> str:
    """A plain value as JSON, in the one form that digests are taken of."""
    return _CANONICAL.encode(value)


def digest_of(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
