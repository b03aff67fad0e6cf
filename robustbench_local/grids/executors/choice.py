"""Which executor a grid asks for, and what goes together."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.errors import ConfigError
from robustbench_local.grids.executors.limits import Limits
from robustbench_local.grids.executors.order import parsed
from robustbench_local.grids.grid import Grid

Executor = Literal["inline", "local", "ray", "slurm"]


def chosen(config: GridConfig) -> Executor:
    """The executor, by what else is said where it is not. ConfigError for what does not go together."""
    Limits.of(config)
    for_others = [key for key in ("workers", "worker", "timeout", "memory") if getattr(config, key) is not None]
    if config.executor == "inline" and for_others:
        raise ConfigError(
            f"{for_others[0]} is for workers, and executor=inline has none: this process does all. Take executor=local"
        )
    if config.worker is not None:
        parsed(config.worker)
        if config.workers is not None or config.executor not in (None, "local"):
            raise ConfigError(
                f"worker={config.worker} is one worker, started by hand or by any scheduler: leave out workers and"
                " executor"
            )
    return config.executor or ("local" if for_others else "inline")


def carry_out(grid: Grid) -> None:
    """Every job of the grid that is not done, or the share of the worker that this is. An executor is loaded here:
    what Ray and Slurm need is installed for them alone.
    """
    name = chosen(grid.config)
    run: Callable[[Grid], None] = importlib.import_module(f"robustbench_local.grids.executors.{name}").run
    run(grid)
