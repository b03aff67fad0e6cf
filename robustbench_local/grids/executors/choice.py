"""Hands a grid to the executor that it asks for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from robustbench_local.grids.executors.settings import executor_of
from robustbench_local.grids.grid import Grid


def carry_out(grid: Grid) -> None:
    """Every job of the grid that is not done, or the share of the worker that this is. An executor is loaded here:
    what Ray and Slurm need is installed for them alone.
    """
    name = executor_of(grid.config)
    run: Callable[[Grid], None] = importlib.import_module(f"robustbench_local.grids.executors.{name}").run
    run(grid)
