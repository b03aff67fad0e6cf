"""Models of several grids beside each other: what the site's script shows of those that are ticked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from robustbench_local.core.escaping import visible
from robustbench_local.report import words
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.table import Line, Rate, Table, identity_of


class SideBySide:
    """conditions: by id, what figures are of; models: by id, their names, grids and figures by condition.

    Conditions of the same images and threat model are one, whichever grid they are of: their figures may be compared,
    though not all are of the same attacks.
    """

    def __init__(self) -> None:
        self.conditions: dict[str, str] = {}
        self.models: dict[str, dict[str, Any]] = {}

    def add(self, grid: str, tables: Iterable[Table], corruptions: Iterable[CorruptionTable]) -> None:
        for table in tables:
            condition = self._condition(
                _images(table.lines), table.threat, f"{words.data_name(table.data)}, {_of(table)}"
            )
            for line in table.lines:
                about = f"over {len(table.attacks)} attack{'s' if len(table.attacks) != 1 else ''}"
                said = "broken, says the audit" if line.broken else f"{about}{words.from_below(line)}"
                rate = None if line.broken else line.worst[-1]
                clean = line.clean.value if line.clean else None
                self._model(grid, line, identity_of(line))["figures"][condition] = _figure(rate, clean, said)
        for nature in corruptions:
            name = f"{words.data_name(nature.data)}, {nature.benchmark}, {nature.images:,} images"
            condition = self._condition(_images(nature.lines), nature.benchmark, f"{name}: accuracy under corruptions")
            about = f"mean over {len(nature.corruptions)} corruptions"
            for each in nature.lines:
                figure = _figure(each.accuracy(), each.clean, about)
                self._model(grid, each, each.identity)["figures"][condition] = figure

    def json(self) -> str:
        """For a script: nothing in it ends the element that it stands in."""
        record = {"conditions": self.conditions, "models": self.models}
        return json.dumps(record, ensure_ascii=True).replace("<", "\\u003c")

    def _condition(self, images: str, threat: str, name: str) -> str:
        key = _digest(images, threat)
        self.conditions.setdefault(key, visible(name))
        return key

    def _model(self, grid: str, line: Line | CorruptionLine, identity: str) -> dict[str, Any]:
        empty = {"name": visible(words.named(line)), "grid": visible(grid), "figures": {}}
        return self.models.setdefault(_digest(grid, identity), empty)


def _of(table: Table) -> str:
    aim = f", targets: {table.targets}" if table.targets else ""
    under = f" under {table.under}" if table.under else ""
    return f"{words.within(table.threat)}{under}, {table.images:,} images{aim}"


def _images(lines: Sequence[Line] | Sequence[CorruptionLine]) -> str:
    every = (line.rows if isinstance(line, Line) else line.cells.values() for line in lines)
    return next(row.of_images() for rows in every for row in rows if row is not None)


def _figure(rate: Rate | None, clean: float | None, about: str) -> dict[str, Any]:
    return {"value": None if rate is None else [rate.value, rate.low, rate.high], "clean": clean, "about": about}


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
