"""Who is to do a grid's cells, as its configuration says it; what does not go together is refused."""

from __future__ import annotations

from typing import Literal

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.errors import ConfigError
from robustbench_local.grids.executors.limits import Limits

Executor = Literal["inline", "local", "ray", "slurm"]


def executor_of(config: GridConfig) -> Executor:
    """The executor, by what else is said where it is not. ConfigError for what does not go together."""
    Limits.of(config)
    for_others = [key for key in ("workers", "worker", "timeout", "memory") if getattr(config, key) is not None]
    if config.executor == "inline" and for_others:
        raise ConfigError(
            f"{for_others[0]} is for workers, and executor=inline has none: this process does all. Take executor=local"
        )
    if config.worker is not None:
        share_of(config.worker)
        if config.workers is not None or config.executor not in (None, "local"):
            raise ConfigError(
                f"worker={config.worker} is one worker, started by hand or by any scheduler: leave out workers and"
                " executor"
            )
    if config.cluster is not None and config.executor not in ("ray", "slurm"):
        raise ConfigError("cluster says what Ray or Slurm is told: it goes with executor=ray or executor=slurm")
    return config.executor or ("local" if for_others else "inline")


def share_of(text: str) -> tuple[int, int]:
    """(i, N) of "i/N"; ConfigError for anything else."""
    place, _, workers = text.partition("/")
    if not (place.isdecimal() and workers.isdecimal() and int(place) < int(workers)):
        raise ConfigError(f'worker is "{text}": it must be i/N with i in 0 .. N - 1, such as 0/3, 1/3 and 2/3')
    return int(place), int(workers)
