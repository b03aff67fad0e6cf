"""What is trained is trained once: processes that share a cache take turns, and one that dies loses its turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.progress import Progress
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.claims import Claims

_POLL = 0.5  # seconds


class BusyError(RobustBenchError):
    """Another process trains this; wait, or do something else meanwhile."""


@contextlib.contextmanager
def my_turn(file: Path, progress: Progress, patient: bool = True) -> Iterator[None]:
    """To make `file`: while no other process does. Whoever waited must look whether it is there by now.

    patient: wait for the others; otherwise BusyError.
    """
    claims = Claims(cache_folder() / "training" / "turns")
    name = file.stem
    said = False
    while not claims.take(name):
        holder = claims.holder(name)
        who = str(holder.owner) if holder else "another process"
        if not patient:
            raise BusyError(f"{who} makes {name}")
        if not said:
            progress.line(f"waiting for {who}, which makes {name}")
        said = True
        time.sleep(_POLL)
    try:
        yield
    finally:
        claims.release(name)
        claims.leave()
