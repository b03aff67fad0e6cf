"""A model's pictures as they are kept beside its rows: a sprite, and what is said of each of its images."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustbench_local.core.escaping import shown
from robustbench_local.storage.row import Row
from robustbench_local.storage.sealing import digest
from robustbench_local.storage.shape import count, maybe, number, one_of, share, size, text, whole, wrong
from robustbench_local.storage.store import Store

IMAGE = ("image", "attacked", "difference")
NEAREST = "least change"
SALIENCY = ("saliency before", "saliency after")
COLUMNS = (*IMAGE, NEAREST, *SALIENCY)  # the pictures of an image, in the order in which they stand
_ANSWER = {"name": text, "confidence": share}
_SAMPLE = {
    "id": whole,
    "label": text,
    "rank": count,
    "before": _ANSWER,
    "after": _ANSWER,
    "factor": size,
    "distance": size,
    "nearest": maybe({"distance": size, "levels": size, "pixels": count, "name": text}),
    "reached": maybe({"distance": size, "attack": text}),
    "correlation": maybe(number),
}
_SHAPE = {
    "row": text,
    "attack": text,
    "threat": text,
    "minimises": lambda value: isinstance(value, bool),
    "fell": count,
    "looked": count,
    "side": count,
    "columns": [one_of(*COLUMNS)],
    "notes": [text],
    "samples": [_SAMPLE],
    "webp": text,
}
_MOST = 2**20  # bytes of a sprite in base64, that a page will hold


@dataclass(frozen=True)
class Panel:
    """What a page shows of one model within one threat, as gallery/panel.py makes it.

    row: key of the attack's. columns: what the tiles of a row of the sprite show, each `side` pixels wide and high.
    """

    row: str
    attack: str
    threat: str
    minimises: bool
    fell: int
    looked: int
    side: int
    columns: list[str]
    notes: list[str]
    samples: list[dict[str, Any]]
    webp: str


def panel_name(row: Row) -> str:
    """Of the file: one for each model, its images and the threat."""
    return f"{digest([row.of_group(), row.threat], 24)}.json"


def keep_panel(store: Store, row: Row, panel: Panel) -> None:
    """Beside the row that it is of; one of the same model, images and threat is replaced."""
    store.keep_pictures(panel_name(row), vars(panel))


def read_panel(store: Store, row: Row) -> Panel | None:
    """The pictures of a row's model within its threat; None where there are none, and with a warning where a file is
    not as they are.
    """
    name = panel_name(row)
    record = store.pictures(name)
    if record is None:
        return None
    if fault := _fault(record):
        warnings.warn(shown(f"the pictures {name} count as missing: {fault}", "terminal"), stacklevel=2)
        return None
    return Panel(**{key: record[key] for key in _SHAPE})


def _fault(record: Mapping[str, Any]) -> str | None:
    if fault := wrong(record, _SHAPE, "it"):
        return fault
    try:
        content = base64.b64decode(record["webp"], validate=True)
    except (binascii.Error, ValueError):
        return "its sprite is no base64"
    if len(record["webp"]) > _MOST or content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return f"its sprite is no WebP, or has more than {_MOST} characters"
    return None
