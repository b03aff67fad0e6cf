"""Who does what, and in which order, where a grid has several workers: the same for all who ask."""

from __future__ import annotations

from robustbench_local.core.defense import is_stochastic
from robustbench_local.grids.cell import Cell
from robustbench_local.grids.executors.settings import share_of
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Job, dearest_first, jobs_of, shared_out
from robustbench_local.grids.running import Planned


def in_order(grid: Grid) -> list[Job]:
    """All jobs, the dearest first."""
    return dearest_first(jobs_of(grid.groups), costs(grid))


def share(grid: Grid, text: str) -> set[Job]:
    """The cells that "i/N" means: the share i of N, from 0."""
    place, workers = share_of(text)
    return shared_out(jobs_of(grid.groups), costs(grid), workers)[place]


def costs(grid: Grid) -> list[float]:
    """Of each cell of the grid, beside the others: passes times parameters. Nothing is asked of any model, and every
    process finds the same.
    """
    found: list[float] = []
    for group in grid.groups:
        try:
            model = grid.builder.build_untrained(group.spec)
        except Exception:  # a stranger's model may die of anything: its cells will say so
            found += [0.0] * len(group.cells)
            continue
        size = sum(weight.numel() for weight in model.parameters()) or 1
        drawn = is_stochastic(model)
        found += [size * _passes(grid, cell, drawn) for cell in group.cells]
    return found


def _passes(grid: Grid, cell: Cell, drawn: bool) -> float:
    """Forward and backward ones, which cost twice as much."""
    images = grid.images[cell.model.data, cell.n]
    about = len(images.classes), cell.threat.norm
    forwards, backwards = cell.attack.cost(*about)
    before = cell.attack.prepare_cost(*about)
    times = len(images) * (cell.eot if drawn else 1)
    judged = len(images) * (cell.draws if drawn else 1)
    return judged + times * (forwards + 2 * backwards) + before[0] + 2 * before[1]


def plan(grid: Grid) -> list[Planned]:
    """What `status` reads."""
    work = costs(grid)
    return [
        Planned(str(cell), group.place, work[group.start + place])
        for group in grid.groups
        for place, cell in enumerate(group.cells)
    ]
