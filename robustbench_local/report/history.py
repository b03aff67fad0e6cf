"""How a grid's figures came to be: what its rows said by the end of each day on which some were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_local.report import words
from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.results import Results, newest
from robustbench_local.report.table import DRAWS, Rate, robust_tables
from robustbench_local.storage.store import Store

_MOST = 8  # days, the last ones

_Place = tuple[str, str]  # table, model


@dataclass(frozen=True)
class History:
    """days: dates, and of several folders which; tables: of each its name, and per model a figure a day, None where
    there was none yet.
    """

    days: tuple[str, ...]
    tables: tuple[tuple[str, tuple[tuple[str, tuple[Rate | None, ...]], ...]], ...]


def history(runs: Sequence[Store]) -> History:
    """Of the folders in which runs of one grid are. Audits have no date: what they found lowers each day's figures.

    A day on which no figure changed is left out.
    """
    found: list[tuple[str, dict[_Place, Rate | None]]] = []
    for store in runs:
        results = Results.of(store.rows(), store)
        for day in sorted({row.created[:10] for row in results.rows if row.ok}):
            where = f" ({store.folder.parent.name})" if len(runs) > 1 else ""
            found.append((f"{day}{where}", _until(day, results)))
    found.sort(key=lambda each: each[0])
    changed = [each for place, each in enumerate(found) if not place or each[1] != found[place - 1][1]][-_MOST:]
    tables: dict[str, dict[str, None]] = {}
    for _, figures in reversed(changed):  # in the order of today
        for table, model in figures:
            tables.setdefault(table, {}).setdefault(model)
    return History(
        tuple(day for day, _ in changed),
        tuple(
            (table, tuple((model, tuple(figures.get((table, model)) for _, figures in changed)) for model in models))
            for table, models in tables.items()
        ),
    )


def _until(day: str, results: Results) -> dict[_Place, Rate | None]:
    """The worst case of each model by the attacks that had run by then, and its accuracy under corruptions."""
    rows = newest(row for row in results.rows if row.created[:10] <= day)
    found = {
        (
            _name(table.data, words.within(table.threat), table.images, table.targets, table.stochastic),
            words.named(line),
        ): (None if line.broken else line.worst[-1])
        for table in robust_tables(rows, results.robust_shares, results.audits)
        for line in table.lines
    }
    for nature in corruption_tables(rows):
        table = f"{words.data_name(nature.data)}, {nature.benchmark}, {nature.images:,} images"
        found |= {(table, words.named(line)): line.accuracy() for line in nature.lines}
    return found


def _name(data: str, within: str, images: int, targets: str | None, stochastic: bool) -> str:
    aim = f", targets: {targets}" if targets else ""
    return f"{words.data_name(data)}, {within}, {images:,} images{aim}{f', {DRAWS}' if stochastic else ''}"
