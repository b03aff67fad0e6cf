"""In this process, cell after cell, in the order of the grid."""

from __future__ import annotations

from robustbench_local.grids.bench import Bench
from robustbench_local.grids.executors.work import work
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import jobs_of


def run(grid: Grid) -> None:
    """Every job of the grid that is not done. What another process works on meanwhile is waited for."""
    work(Bench(grid), jobs_of(grid.groups), alone=True)
