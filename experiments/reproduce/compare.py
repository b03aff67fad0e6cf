"""A published figure beside the one measured here: the difference, its interval, a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments.reproduce.published import CERTAINTY, Figure
from robustbench_local.errors import ConfigError
from robustbench_local.metrics import wilson

Row = dict[str, Any]

_UNSAID = {"adaptive": True}  # what a definition leaves out


@dataclass(frozen=True)
class Compared:
    """here: the rate measured, of n images, in percent; None where its cell failed. interval: of here - published."""

    figure: Figure
    here: float | None
    n: int
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float | None:
        return None if self.here is None or self.figure.value is None else self.here - self.figure.value

    @property
    def verdict(self) -> str:
        if self.here is None:
            return "failed: see the rows"
        if self.interval is None or self.difference is None:
            return "nothing to compare with"
        low, high = self.interval
        if low <= 0 <= high:
            return "agrees within the luck of sampling"
        return f"{abs(self.difference):.1f} points {'higher' if low > 0 else 'lower'} here"

    @property
    def origin(self) -> str:
        return CERTAINTY[self.figure.certainty]


def compare(figure: Figure, rows: Iterable[Row]) -> Compared:
    """The figure beside the one row of the grid that its cell names. ConfigError unless it names exactly one."""
    matching = [row for row in rows if _matches(row["definition"], figure.cell)]
    if len(matching) != 1:
        raise ConfigError(f"{figure.what}: {len(matching)} rows of the grid are {figure.cell}, and it must name one")
    (row,) = matching
    if row["status"] != "ok":
        return Compared(figure, None, 0, None)
    right, n = _counts(row["results"], figure.figure)
    here = 100 * right / n if n else None
    interval = None if figure.value is None or not n else _interval(right, n, figure)
    return Compared(figure, here, n, interval)


def _matches(definition: Row, cell: dict[str, Any]) -> bool:
    for key, wanted in cell.items():
        of, _, setting = key.partition(".")
        found = definition[f"{of}_settings"].get(setting) if setting else definition.get(of, _UNSAID.get(of))
        if found != wanted:
            return False
    return True


def _counts(results: Row, figure: str) -> tuple[float, int]:
    """(successes, trials); of a random model the successes are a sum of shares."""
    n = results["n"]
    if figure in ("robust", "clean"):
        return results[f"{figure}_accuracy"] * n, n
    right = round(results["clean_accuracy"] * n)
    return right - results["robust_accuracy"] * n, right


def _interval(right: float, n: int, figure: Figure) -> tuple[float, float]:
    """95 % interval of the difference of two independent rates (Newcombe 1998, method 10), in points.

    A published figure whose number of images is not known is taken as exact.
    """
    assert figure.value is not None
    here, there = right / n, figure.value / 100
    low, high = wilson(right, n)
    least, most = wilson(there * figure.n, figure.n) if figure.n else (there, there)
    down, up = math.hypot(here - low, most - there), math.hypot(high - here, there - least)
    return 100 * (here - there - down), 100 * (here - there + up)
