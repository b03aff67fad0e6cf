"""Rows as they come, whoever makes them: each is sent to the grid's sinks, and each model that is done is shown."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType

from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.progress import Progress
from robustbench_local.core.streams import width
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group
from robustbench_local.grids.plan import as_list
from robustbench_local.grids.shelf import Shelf
from robustbench_local.report.render import brief
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row
from robustbench_local.storage.sinks.sinks import Sinks

_EVERY = 1.0  # seconds between two looks, or more:
_COSTS = 0.05  # the share of the time that looking takes at most


class Arrivals(Progress):
    """Passes on what is said. Executors say when a cell has ended, and when they rest: then it looks for rows."""

    def __init__(self, grid: Grid) -> None:
        """ConfigError where a sink is named whose library is not there."""
        self._grid, self._shelf, self._shown = grid, Shelf(grid), grid.progress
        self._sinks = Sinks(as_list(grid.config.log), grid.store.folder, grid.progress.line)
        self._rows: dict[int, dict[str, Row]] = {group.place: {} for group in grid.groups}
        self._left = list(grid.groups)
        self._next = time.monotonic() + _EVERY
        self._began = datetime.now(UTC).isoformat(timespec="seconds")

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._look(shows=False)  # interrupted, it has what is there

    def take(self, rows: Iterable[Row]) -> None:
        """All that there are at the end; a sink has most of them."""
        for row in rows:
            self._sinks.send(row)
        self._left = []

    def line(self, text: str) -> None:
        self._shown.line(text)
        self.rest()

    def rest(self) -> None:
        now = time.monotonic()
        if now > self._next:
            self._look(shows=len(self._left) > 1)
            took = time.monotonic() - now
            self._next = now + took + max(_EVERY, took / _COSTS)

    def block(self, text: str) -> None:
        self._shown.block(text)

    def advance(self, what: str, share: float) -> None:
        self._shown.advance(what, share)

    def lane(self, place: int) -> Progress:
        return self._shown.lane(place)

    def _look(self, *, shows: bool) -> None:
        running = self._grid.running
        for group in list(self._left):
            keys = [key for key in running.keys(group.place) or () if key]
            rows = self._rows[group.place]
            for key in keys:
                if key not in rows and (row := self._shelf.settled(key)):
                    rows[key] = row
                    self._sinks.send(row)
            if keys and len(rows) == len(set(keys)) and running.is_audited(group.place):
                self._left.remove(group)
                if shows and self._left and any(row.created >= self._began for row in rows.values()):
                    self._show(group)

    def _show(self, group: Group) -> None:
        rows = list(self._rows[group.place].values())
        with suppress(RobustBenchError):  # a row that was damaged since: it is made again
            for table in Results.of(rows, self._grid.store).tables():
                self._shown.block(brief(table, width()))
