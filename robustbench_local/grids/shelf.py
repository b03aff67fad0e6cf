"""The rows of a grid that are there already, and the new ones: what is done is not done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

from robustbench_local.core.errors import StoreError
from robustbench_local.grids.arrays import SAVED
from robustbench_local.grids.cell import Cell, Task, applicable
from robustbench_local.grids.execute import Outcome
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import WEIGHTS, Row, done
from robustbench_local.storage.sealing import plain
from robustbench_local.storage.store import Store


class Shelf:
    """Of one start of a grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._store = grid, grid.store

    def good(self, key: str) -> Iterator[tuple[Store, Row]]:
        """The good rows of that name, with all that is to be saved: the grid's own, then those of its neighbours."""
        config = self._grid.config
        for store in (self._store,) if config.force else (self._store, *self._grid.neighbours):
            row = store.read(key)
            if done(row) and self._is_whole(row) and (not config.force or row.start == self._grid.start):
                yield store, row

    def _is_whole(self, row: Row) -> bool:
        """Whether a good row has all that is to be saved, which of a certificate is nothing besides."""
        return row.certifies or SAVED[self._grid.config.save] <= row.array_names

    def is_done(self, key: str) -> bool:
        return next(self.good(key), None) is not None

    def settled(self, key: str) -> Row | None:
        """The row of a cell about which nothing is left to do: a good one, an error of this very start, or one that is
        tried again only if asked for.
        """
        for store, row in self.good(key):
            if store is self._store:
                return row
        found = self._store.read(key)
        if found is None or found.ok:
            return None
        stays = found.stays and not self._grid.config.retry
        return found if stays or found.start == self._grid.start else None

    def ended(self, key: str) -> Row | None:
        """The row of a cell that somebody saw to: a settled one, or an error of whichever start of the command."""
        if row := self.settled(key):
            return row
        found = self._store.read(key)
        return None if found is None or found.ok else found

    def resumed(self, task: Task) -> Row | None:
        """The row of a cell that was done before; a neighbour's is copied."""
        for store, row in self.good(task.key):
            with suppress(StoreError):  # it is there no more
                own = row if store is self._store else self._store.take(row, store, grid=self._grid.name)
                where = "" if own is row else f", in {store.folder}"
                self._grid.progress.line(f"{task.cell}: done before{where}")
                return own
        return None

    def keep(self, outcome: Outcome, cell: Cell) -> Row:
        """Store a row, and say how its cell ended."""
        made = outcome.row
        if self._grid.config.force or not made.ok:
            made = Row({**made, "start": self._grid.start})
        row = self._store.write(made.key, made, outcome.arrays)
        if not made.ok:
            ended = made.why if made.left_out else f"FAILED, {made.failure}"
            self._grid.progress.line(f"{cell}: {ended}")
            return row
        if row.certifies:
            certified, took = made["results"]["certified_accuracy"], made["results"]["seconds"]
            self._grid.progress.line(f"{cell}: certified {100 * certified:.1f} % ({took:.1f} s)")
            return row
        clean, robust = 100 * made.results["clean_accuracy"], 100 * made.results["robust_accuracy"]
        seconds = made.results["seconds"]
        self._grid.progress.line(f"{cell}: clean {clean:.1f} %, robust {robust:.1f} % ({seconds:.1f} s)")
        return row

    def stored(self, rows: list[Row]) -> bool:
        """Whether the good ones among them are all there still."""
        return all(not row.ok or self._store.done(row.key) for row in rows)

    @cached_property
    def _trained(self) -> dict[str, list[Row]]:
        """The good rows of models that were trained or fitted, as there were at first, by origin, the newest first."""
        found: dict[str, list[Row]] = {}
        for row in sorted(self._store.every(), key=lambda row: row.created, reverse=True):
            if row.ok and "origin" in row:
                found.setdefault(row["origin"], []).append(row)
        return found

    def made_elsewhere(self, group: Group) -> list[tuple[Cell, Row]]:
        """The rows of a model that is trained or fitted, where the grid's folder holds them all for what the same
        recipe gave on another machine, and not all for what it gave here; otherwise none.
        """
        grid, builder, spec = self._grid, self._grid.builder, group.spec
        origin = None if grid.config.force else builder.origin(spec)
        if origin is None:
            return []
        untrained = builder.needs_training(spec)
        model = builder.build_untrained(spec) if untrained else builder.build(spec)
        digest = None if untrained else weights_digest(model)
        tasks = [grid.task(cell, digest) for cell in applicable(group.cells, model)]
        if not untrained and all(map(self.is_done, (task.key for task in tasks))):
            return []
        wanted = [Row(plain({"definition": task.definition})).of_cell(WEIGHTS) for task in tasks]
        made: dict[str | None, dict[str, Row]] = {}
        for row in self._trained.get(origin, ()):
            if self._is_whole(row):
                made.setdefault(row.definition["weights_digest"], {}).setdefault(row.of_cell(WEIGHTS), row)
        for there in made.values():
            if wanted and all(cell in there for cell in wanted):
                return [(task.cell, there[cell]) for task, cell in zip(tasks, wanted, strict=True)]
        return []
