"""A grid, resolved: what is to be measured, on what, and where the rows go. Nothing runs here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.device import pick_device
from robustbench_local.core.downloads import downloads
from robustbench_local.core.progress import Progress
from robustbench_local.data.images import Images
from robustbench_local.data.transform import Transform
from robustbench_local.evaluation.budget import budget_within
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.grids.default_grid import default_values
from robustbench_local.grids.executors.settings import executor_of
from robustbench_local.grids.images import judged, learnt_from, numbering, sized
from robustbench_local.grids.jobs import Group, grouped
from robustbench_local.grids.kept_images import check_room
from robustbench_local.grids.plan import as_list, config_of, read_config, resolve
from robustbench_local.grids.running import Running, run_of
from robustbench_local.storage.store import Store
from robustbench_local.training.builder import ModelBuilder


@dataclass(frozen=True)
class Grid:
    """A grid, resolved: its cells, the images they are about, and the store of its rows.

    neighbours: the stores of other grids in the same results folder, whose rows are taken over. images: by data set
    and n, None for all of the grid's. attackers: by data set, what an attack may learn from. chosen: the places of its
    cells among all that its configuration means. start: of the command, as rows record it that are to be told from
    those of an earlier start.
    """

    name: str
    config: GridConfig
    progress: Progress
    store: Store
    neighbours: tuple[Store, ...]
    builder: ModelBuilder
    cells: tuple[Cell, ...]
    images: dict[tuple[str, int | None], Images]
    attackers: dict[str, Images]
    chosen: tuple[int, ...]
    start: str

    @classmethod
    def open(cls, name: str | None, overrides: dict[str, Any], progress: Progress) -> Grid:
        """The grid of that name or path; without one, a suite's attacks on the data and models that overrides name.

        ConfigError and its like on any mistake in it; nothing runs.
        """
        if name is not None:
            return cls.of(read_config(name, overrides), Path(name).stem, progress)
        name, values = default_values(overrides)
        return cls.of(config_of(values, "the run"), name, progress)

    @classmethod
    def of(
        cls,
        config: GridConfig,
        name: str,
        progress: Progress,
        *,
        chosen: Collection[int] | None = None,
        start: str | None = None,
    ) -> Grid:
        """The grid that a configuration says, under that name, as `open` gives it; of a dry run nothing is fetched."""
        with downloads(not config.dry_run):
            return cls._of(config, name, progress, chosen, start)

    @classmethod
    def _of(
        cls, config: GridConfig, name: str, progress: Progress, chosen: Collection[int] | None, start: str | None
    ) -> Grid:
        executor_of(config)
        device = pick_device(config.device)
        store = Store(Path(config.results).expanduser() / name)
        builder = ModelBuilder(device, config.source, progress, patient=False)
        cells = tuple(resolve(config, builder))
        config = sized(config, cells, builder)
        builder.transform = Transform.of(config.resize, config.crop)
        wanted = {(str(data), None) for data in as_list(config.data)} | {(cell.model.data, cell.n) for cell in cells}
        names = {data: numbering(data, cells, builder) for data, _ in wanted}
        images = {(data, n): judged(config, data, n, device, names[data]) for data, n in wanted}
        for each in images.values() if config.save == "x_adv" else ():
            check_room(each, config.precision)
        for cell in cells:
            cell.attack.sources()  # what an attack reads must be there before anything runs
        learning = {cell.model.data for cell in cells if cell.attack.own_images}
        attackers = {data: learnt_from(config, images[data, None], data, names[data]) for data in learning}
        neighbours = tuple(store.neighbours())
        places = tuple(range(len(cells)) if chosen is None else chosen)
        cells, start = tuple(cells[place] for place in places), start or secrets.token_hex(6)
        return cls(
            name, config, progress, store, neighbours, builder, cells, images, attackers, chosen=places, start=start
        )

    def only(self, wanted: Callable[[Cell], bool]) -> Grid:
        """The same grid with fewer cells."""
        kept = [(cell, place) for cell, place in zip(self.cells, self.chosen, strict=True) if wanted(cell)]
        return replace(self, cells=tuple(cell for cell, _ in kept), chosen=tuple(place for _, place in kept))

    @cached_property
    def groups(self) -> list[Group]:
        """The cells model by model."""
        return grouped(self.cells)

    @cached_property
    def running(self) -> Running:
        """What is known of all who work on this grid."""
        return Running(self.store.folder, run_of(self.config, self.cells), self.start)

    def task(self, cell: Cell, digest: str | None, origin: str | None = None) -> Task:
        """The cell with what it is run on. digest: of the weights of its model, None where there are none yet."""
        data = cell.model.data
        images, attacker = self.images[data, cell.n], self.attackers.get(data)
        behaviour = self.builder.behaviour(cell.model)
        budget = budget_within(self.config.budget, self.builder.queries_per_image(cell.model))
        config = replace(self.config, budget=budget)
        return Task(self.name, cell, config, images, digest, attacker, behaviour, origin)
