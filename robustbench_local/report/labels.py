"""What attacks and models are called in a table: a name, and those settings that tell namesakes apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_local.report.text import visible
from robustbench_local.store import Row

# anything else is part of an attack's name
_USUAL = {"count": "all", "precision": "float32", "budget": None, "adaptive": True}
_NAIVE = "naive "
DRAWN = ("eot", "draws")
_MADE_OF = {"defense": ("weights_digest", "defense_version"), "attack": ("attack_version",)}


@dataclass(frozen=True)
class Label:
    """A name, and what tells it from others of the same name."""

    name: str
    details: tuple[str, ...] = ()

    @property
    def naive(self) -> bool:
        return self.name.startswith(_NAIVE)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.details)})" if self.details else self.name


def labelled(rows: Sequence[Row], kind: str, also: Sequence[str] = ()) -> list[Label]:
    """The attack or defense of each row, with those settings that are unusual or differ among its namesakes.

    Where that leaves some alike: also what they were made of, as far as that differs.
    """
    about = [row["definition"] for row in rows]
    named = [
        (each[kind], each["model"] if kind == "defense" else is_naive(row))
        for each, row in zip(about, rows, strict=True)
    ]
    settings = [each[f"{kind}_settings"] | {key: each.get(key, _USUAL.get(key)) for key in also} for each in about]
    made_of = [{key: each.get(key) for key in _MADE_OF[kind]} for each in about]
    shown = _telling(named, settings)
    rest = _telling(list(zip(named, shown, strict=True)), made_of)
    return [
        Label(visible(f"{_NAIVE}{name[0]}" if name[1] is True else name[0]), tuple(map(visible, own + more)))
        for name, own, more in zip(named, shown, rest, strict=True)
    ]


def with_draws(labels: Sequence[Label], rows: Sequence[Row]) -> list[Label]:
    """The labels of models, with how often each was asked where they differ in it."""
    drawn = [{key: row["definition"].get(key) for key in DRAWN} for row in rows]
    shown = _telling([None] * len(rows), drawn)
    return [replace(label, details=label.details + more) for label, more in zip(labels, shown, strict=True)]


def _telling(names: Sequence[Any], settings: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of each: the settings that are unusual or differ among its namesakes."""
    values: dict[Any, set[str]] = defaultdict(set)
    for name, own in zip(names, settings, strict=True):
        for key, value in own.items():
            values[name, key].add(str(value))
    return [
        tuple(
            f"{key}={_short(value)}" for key, value in own.items()
            if len(values[name, key]) > 1 or value != _USUAL.get(key, value)
        )
        for name, own in zip(names, settings, strict=True)
    ]  # fmt: skip


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:8]  # a digest


def is_naive(row: Row) -> bool:
    """Of an attack that knew of no defense: shown, and no part of the worst case."""
    return not row["definition"].get("adaptive", True)
