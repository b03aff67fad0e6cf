"""What a sink is, and what every sink is told of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_local.storage.row import Row

Value = str | int | float | bool
_ABOUT = (
    "data",
    "split",
    "model",
    "defense",
    "attack",
    "certificate",
    "threat",
    "eps",
    "seed",
    "count",
    "precision",
    "access",
)
_SETTINGS = ("defense_settings", "attack_settings")


@dataclass(frozen=True)
class Entry:
    """A row as a service takes it. name: for people. about: what was measured, one value each. figures: what came."""

    key: str
    name: str
    grid: str
    about: Mapping[str, Value]
    figures: Mapping[str, float]

    @classmethod
    def of(cls, row: Row) -> Entry:
        """Of a row that has results."""
        definition: Mapping[str, Any] = dict(row.definition)
        about = {key: _value(definition[key]) for key in _ABOUT if key in definition}
        for kind in _SETTINGS:
            about |= {f"{kind}.{key}": _value(each) for key, each in _flat(definition.get(kind) or {})}
        what = f"certify {row.said('certificate')}" if row.certifies else row.attack
        name = f"{row.model} {row.defense} {what} {row.threat}"
        return cls(row.key, name, str(row.get("grid", "")), about, dict(_figures(row.results)))


class Sink(ABC):
    """A service that rows are sent to. Making one loads its library; folder is that of the grid's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def send(self, entry: Entry) -> None:
        """One row. Whatever it raises is said, and the grid goes on."""


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _value(value: Any) -> Value:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _figures(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers, and of an interval both ends."""
    for key, value in results.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
        elif key.endswith("_interval"):
            yield f"{key}_low", float(value[0])
            yield f"{key}_high", float(value[1])
