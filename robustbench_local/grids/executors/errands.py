"""Jobs of a grid, packed for workers that may see neither its folder nor its cache; and what comes back, unpacked."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from robustbench_local.core.errors import RobustBenchError
from robustbench_local.grids.executors.child import Orders
from robustbench_local.grids.executors.remote import AUDIT, Errand, Files, Report, write
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group
from robustbench_local.grids.pictures import TWINS
from robustbench_local.storage.archive import NAME as PACKED
from robustbench_local.storage.archive import PICTURES
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.part_store import PartStore


class Errands:
    """Of one start of a grid. threads: of each worker."""

    def __init__(self, grid: Grid, threads: int = 1) -> None:
        self._grid, self._folder, self._token = grid, grid.store.folder, f"sent-{secrets.token_hex(8)}"
        # a worker may have another device of the kind, and has another number for the same one
        device = grid.config.device if grid.config.device == "auto" else grid.builder.device.type
        self._orders = Orders.of(grid, None, threads, device).__dict__

    @contextmanager
    def token(self) -> Iterator[None]:
        """While it lies there, workers know the folder and the cache as those of this grid."""
        places = [folder / self._token for folder in (self._grid.running.folder, cache_folder())]
        try:
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            yield
        finally:
            for place in places:
                place.unlink(missing_ok=True)

    def of(self, group: Group, what: int | str, rows: slice | None = None) -> Errand:
        """what: a cell's place in the group, AUDIT, or MODEL. rows: of the cell only images start:stop."""
        return Errand(
            orders=self._orders,
            group=group.place,
            what=what,
            rows=None if rows is None else (rows.start, rows.stop),
            folder=str(self._folder.absolute()),
            token=self._token,
            untimed=self._grid.running.building(group).rpartition("-")[0],
            path=[os.path.abspath(place) for place in sys.path],
            cwd=os.getcwd(),
        )

    def results(self, group: Group, what: int | str) -> Files:
        """What a worker must know of the results: what the model's rows are called, what ended others, the parts of a
        cell, and, for an audit, the rows with their pictures.
        """
        running = self._grid.running
        files = [*(running.folder / "deaths").glob("*"), *(running.folder / "models").glob(f"*-{group.place}*")]
        known = running.keys(group.place) or []
        if isinstance(what, int) and what < len(known):
            files += self.parts(known[what] or "")
        if what == AUDIT:
            keys = [key for key in known if key]
            places = self._folder / "rows", running.folder / TWINS
            files += [file for key in keys for place in places for file in place.glob(f"{key}.*")]
            files += [self._folder / PACKED, *(self._folder / PICTURES).glob("*.json")]
        return _contents(self._folder, files)

    def parts(self, key: str) -> list[Path]:
        """The files of a cell's parts."""
        return list(PartStore(self._folder).folder.glob(f"{key}.*"))

    def kept(self, group: Group) -> Files:
        """What the group's model learnt, as far as the cache of this machine has it."""
        return _contents(cache_folder(), self._grid.builder.kept(group.spec))

    def take_in(self, report: Report) -> None:
        """Say what was said, keep what was sent; RobustBenchError of what must stop the grid."""
        for line in report.lines:
            self._grid.progress.line(line)
        if report.wrong:
            raise RobustBenchError(report.wrong)
        write(self._folder, report.results)
        write(cache_folder(), report.kept, anew=False)


def _contents(folder: Path, files: Iterable[Path]) -> Files:
    found: Files = {}
    for file in files:
        with suppress(OSError):  # it is there no more
            found[file.relative_to(folder).as_posix()] = file.read_bytes()
    return found
