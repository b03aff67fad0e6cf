"""A published figure beside the one measured here: the difference, its interval, a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments.reproduce.kinds import pooled
from experiments.reproduce.published import CERTAINTY, Figure
from robustbench_local.core.errors import ConfigError
from robustbench_local.metrics.rates import wilson
from robustbench_local.storage.row import Row


@dataclass(frozen=True)
class Compared:
    """here: the share measured, of n images, in percent; None where it was not measured, and missing says why.

    interval: of here - published.
    """

    figure: Figure
    here: float | None
    n: int
    interval: tuple[float, float] | None
    missing: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.here is None or self.figure.value is None else self.here - self.figure.value

    @property
    def verdict(self) -> str:
        if self.missing:
            return self.missing
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
    """The figure beside the rows of the grid that its cell names. ConfigError unless they are as many as it says."""
    matching = [row for row in rows if _matches(row, figure.cell)]
    if len(matching) != figure.rows:
        wanted = "one" if figure.rows == 1 else figure.rows
        raise ConfigError(
            f"{figure.what}: {len(matching)} rows of the grid are {figure.cell}, and it must name {wanted}"
        )
    for row in matching:
        if not row.ok:
            return Compared(figure, None, 0, None, row.get("waits", "failed: see the rows"))
    found = pooled(figure.figure, [row.results for row in matching])
    if found is None:
        return Compared(figure, None, 0, None, "no image to count")
    share, n = found[0], max(1, round(found[1]))
    interval = None if figure.value is None else _interval(share, n, figure)
    return Compared(figure, 100 * share, n, interval)


def _matches(row: Row, cell: dict[str, Any]) -> bool:
    for key, wanted in cell.items():
        of, _, setting = key.partition(".")
        found = (row.said(f"{of}_settings") or {}).get(setting) if setting else row.said(of)
        if found != wanted:
            return False
    return True


def _interval(here: float, n: int, figure: Figure) -> tuple[float, float]:
    """95 % interval of the difference of two independent rates (Newcombe 1998, method 10), in points.

    A published figure whose number of images is not known is taken as exact.
    """
    assert figure.value is not None
    there = figure.value / 100
    low, high = wilson(here * n, n)
    least, most = wilson(there * figure.n, figure.n) if figure.n else (there, there)
    down, up = math.hypot(here - low, most - there), math.hypot(high - here, there - least)
    return 100 * (here - there - down), 100 * (here - there + up)
