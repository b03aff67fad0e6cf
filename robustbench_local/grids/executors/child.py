"""One worker process of this machine: it opens the grid for itself, and works until nothing is left."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import RobustBenchError, said
from robustbench_local.core.progress import Progress
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.executors.order import in_order, share
from robustbench_local.grids.executors.work import work
from robustbench_local.grids.grid import Grid

WRONG, ORPHANED = 2, 3  # exit codes: an error that stops the whole run; nobody is left to work for
_DEATH_OF_PARENT = 1  # Linux's prctl: which signal that is to a process
_leave = os._exit


@dataclass(frozen=True)
class Orders:
    """What a worker is told, as JSON on its standard input. share: "i/N", None for whatever is left."""

    config: dict[str, Any]
    name: str
    chosen: list[int]
    start: str
    share: str | None
    threads: int

    @classmethod
    def of(cls, grid: Grid, share: str | None, threads: int, device: str | None) -> Orders:
        config = {**asdict(grid.config), "device": device}
        return cls(config, grid.name, list(grid.chosen), grid.start, share, threads)

    def opened(self, progress: Progress) -> Grid:
        """The grid, in a process that does nothing else."""
        faulthandler.enable()  # of a crash it says where in the code it was
        torch.set_num_threads(self.threads)
        return Grid.of(GridConfig(**self.config), self.name, progress, chosen=self.chosen, start=self.start)


class Spoken(Progress):
    """Lines on standard output, for whoever started this process; those that cannot be written are lost."""

    def line(self, text: str) -> None:
        with suppress(OSError):
            print(text, flush=True)


def main() -> None:
    """Exit code 0 when nothing is left to do."""
    told = lines()
    orders = Orders(**json.loads(next(told)))
    threading.Thread(target=_end_with_parent, args=(told,), daemon=True).start()
    warnings.showwarning = _warn
    try:
        with guarded():
            grid = orders.opened(Spoken())
            mine = None if orders.share is None else share(grid, orders.share)
            grid.running.claims.says("", "idle")
            work(Bench(grid), in_order(grid), mine)
            grid.running.claims.leave()
    except RobustBenchError as error:
        print(f"{type(error).__name__}: {said(error)}", file=sys.stderr, flush=True)
        sys.exit(WRONG)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    Spoken().line(f"warning: {message}")


def lines() -> Iterator[bytes]:
    """Of standard input, which is read past Python's buffer: a thread that waits there holds its lock to the end.

    Standard input ends when the process that holds its other end does, however that ended: so does this one then. A
    process that is stopped, or whose code keeps Python's lock, does not see that; Linux ends those as well.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_OF_PARENT, signal.SIGKILL)
    unread = b""
    while part := os.read(0, 65536):
        *whole, unread = (unread + part).split(b"\n")
        yield from whole
    _leave(ORPHANED)


def _end_with_parent(told: Iterator[bytes]) -> None:
    for _ in told:
        pass


if __name__ == "__main__":
    main()
