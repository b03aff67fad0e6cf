"""A table of corruptions as a section of the page: noise and weather, which aim at nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_local.core.escaping import visible
from robustbench_local.report import words
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.headline import weathered
from robustbench_local.report.picture import Picture
from robustbench_local.report.table import Rate
from robustbench_local.report.text import percent


@dataclass(frozen=True)
class Weather:
    """A model's line under corruptions. worst: the corruption under which it errs most, and its accuracy there."""

    line: CorruptionLine
    name: str
    of: str

    @property
    def rank(self) -> str:
        return str(self.line.rank).replace("-", "–") if self.line.rank else ""

    @property
    def clean(self) -> Rate | None:
        clean = self.line.clean
        return None if clean is None else Rate(clean, clean, clean)

    @property
    def mean(self) -> Rate | None:
        return self.line.accuracy()

    @property
    def worst(self) -> str:
        worst = self.line.worst
        return f"{visible(worst[0])}, {percent(1 - worst[1])}" if worst else ""


@dataclass(frozen=True)
class Nature:
    """A table of corruptions as a section of the page."""

    table: CorruptionTable
    name: str
    answer: str
    lines: list[Weather]
    pictures: Sequence[Picture]

    @property
    def undefended(self) -> Rate | None:
        """The accuracy to compare with: of the best model without a defense."""
        return next((line.mean for line in self.lines if line.line.defense.name == "none" and line.mean), None)


def nature(table: CorruptionTable, pictures: Sequence[Picture]) -> Nature:
    """Its name: "CIFAR-10-C", "MNIST, other corruptions"."""
    data = words.data_name(table.data)
    name = "other corruptions" if table.benchmark == "other" else table.benchmark
    under = f", under {table.under}" if table.under else ""
    full = f"{name if name.startswith(data) else f'{data}, {name}'}{under}"
    lines = [Weather(line, words.defense(line), visible(line.model)) for line in table.lines]
    return Nature(table, full, weathered(table), lines, pictures)
