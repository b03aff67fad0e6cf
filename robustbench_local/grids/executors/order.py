"""Who does what, and in which order, where a grid has several workers: the same for all who ask."""

from __future__ import annotations

import math

from robustbench_local.core.containment import contained
from robustbench_local.core.errors import PluginError
from robustbench_local.grids.executors.settings import share_of
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Job, dearest_first, jobs_of, shared_out
from robustbench_local.grids.price import Load, known_works, work
from robustbench_local.grids.running import Planned


def in_order(grid: Grid) -> list[Job]:
    """All jobs, the dearest first."""
    return dearest_first(jobs_of(grid.groups), costs(grid))


def share(grid: Grid, text: str) -> set[Job]:
    """The cells that "i/N" means: the share i of N, from 0."""
    place, workers = share_of(text)
    return shared_out(jobs_of(grid.groups), costs(grid), workers)[place]


def costs(grid: Grid) -> list[float]:
    """Of each cell of the grid, beside the others: every process finds the same."""
    found: list[float] = []
    for group in grid.groups:
        sizes = [len(grid.images[cell.model.data, cell.n]) for cell in group.cells]
        try:
            with contained(PluginError, str(group)):
                model = grid.builder.build_untrained(group.spec)
                load = Load.of(model, len(grid.images[group.spec.data, None].classes))
                found += [work(cell, load, n) for cell, n in zip(group.cells, sizes, strict=True)]
        except Exception:  # a stranger's model or attack may die of anything: its cells will say so
            found += [math.nan] * len(group.cells)
    return known_works(found)


def plan(grid: Grid) -> list[Planned]:
    """What `status` reads."""
    each = costs(grid)
    return [
        Planned(str(cell), group.place, each[group.start + place])
        for group in grid.groups
        for place, cell in enumerate(group.cells)
    ]
