"""What attacks and models are called in a table: a name, and those settings that tell namesakes apart."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_local.core.escaping import visible
from robustbench_local.storage.row import BEHAVIOUR, DRAWN, JUDGED, Row

# anything else is part of an attack's name
_USUAL = {"count": "all", "precision": "float32", "budget": None}
_NAIVE = "naive "


@dataclass(frozen=True)
class Label:
    """A name, and what tells it from others of the same name. naive: of an attack that knew of no defense."""

    name: str
    details: tuple[str, ...] = ()
    naive: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.details)})" if self.details else self.name


def attack_labels(rows: Sequence[Row], but: Collection[str] = ()) -> list[Label]:
    """The attack of each row, with those settings that are unusual or differ among its namesakes.

    Where that leaves some alike: also whatever else of its identity differs. but: keys that tell no two apart.
    """
    judged = [key for key in (*JUDGED, *DRAWN) if key not in but]
    named = {"attack", "attack_settings", "adaptive", *judged, *but}
    rest = sorted(set().union(*(row.attack_keys() for row in rows)) - named)
    names = [f"{'' if row.adaptive else _NAIVE}{row.attack}" for row in rows]
    usual = {key: _USUAL.get(key) for key in judged}
    given = [{key: row.said(key) for key in judged if key in row.definition} for row in rows]
    settings = [row.definition["attack_settings"] | usual | own for row, own in zip(rows, given, strict=True)]
    others = [{key: _plain(row.said(key)) for key in rest} for row in rows]
    labels = _labels(names, names, settings, others)
    return [replace(label, naive=not row.adaptive) for label, row in zip(labels, rows, strict=True)]


def defense_labels(rows: Sequence[Row]) -> list[Label]:
    """The defense of each row; namesakes are those in front of the same architecture. As attack_labels."""
    made = ("weights_digest", *BEHAVIOUR, "defense_version")
    made_of = [{key: row.said(key) for key in made} for row in rows]
    settings = [row.definition["defense_settings"] for row in rows]
    return _labels([row.defense for row in rows], [(row.defense, row.model) for row in rows], settings, made_of)


def _labels(
    names: Sequence[str], namesakes: Sequence[Any], settings: Sequence[dict[str, Any]], rest: Sequence[dict[str, Any]]
) -> list[Label]:
    shown = _telling(namesakes, settings)
    more = _telling(list(zip(namesakes, shown, strict=True)), rest)
    return [
        Label(visible(name), tuple(map(visible, own + other)))
        for name, own, other in zip(names, shown, more, strict=True)
    ]


def with_draws(labels: Sequence[Label], rows: Sequence[Row]) -> list[Label]:
    """The labels of models, with how often each was asked where they differ in it."""
    drawn = [{key: row.said(key) for key in DRAWN} for row in rows]
    shown = _telling([None] * len(rows), drawn)
    return [replace(label, details=label.details + more) for label, more in zip(labels, shown, strict=True)]


def _telling(names: Sequence[Any], settings: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of each: the settings that are unusual or differ among its namesakes."""
    values: dict[Any, Counter[str]] = defaultdict(Counter)
    for name, own in zip(names, settings, strict=True):
        for key, value in own.items():
            values[name, key][str(value)] += 1
    namesakes = Counter(names)
    differing = {
        place for place, found in values.items() if len(found) > 1 or found.total() < namesakes[place[0]]
    }  # or some do not have it
    unlike = {place for place, found in values.items() if len({*map(_short, found)}) == len(found)}  # when cut short

    def said(name: Any, key: str, value: Any) -> str:
        return _short(value) if (name, key) in unlike else str(value)  # in full, if that tells

    return [
        tuple(
            f"{key}={said(name, key, value)}"
            for key, value in own.items()
            if (name, key) in differing or value != _USUAL.get(key, value)
        )
        for name, own in zip(names, settings, strict=True)
    ]


def _plain(value: Any) -> Any:
    """A digest of what is no single value."""
    if not isinstance(value, dict | list):
        return value
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 or text.startswith("{") else text[:8]  # a digest
