"""How many of twelve tasks are lost where one worker is killed: the standard library's pool, loky and Ray.

    python -m benchmarks.pools --workers 2

Each task is a sleep, for so many seconds. The worker that has the first task of the second round is ended by SIGKILL
in the middle of it, with no second try. What is not installed is left out (`pip install loky`, `pip install
'robustbench_local[ray]'`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks._timing import surroundings
from robustbench_local.report.markdown import markdown_table

TASKS = 12
Ask = Callable[[int, str, float], Callable[[], object]]  # sends a task; what it gives waits for the end of it


def task(number: int, folder: str, seconds: float) -> int:
    """Says by a file which process has it, sleeps, and is done."""
    mine = Path(folder) / f"{number}.part"
    mine.write_text(str(os.getpid()))
    mine.rename(mine.with_suffix(""))
    time.sleep(seconds)
    return number


def _asked(pool: Executor) -> Ask:
    return lambda *words: pool.submit(task, *words).result


@contextmanager
def standard(workers: int) -> Iterator[Ask]:
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield _asked(pool)


@contextmanager
def loky(workers: int) -> Iterator[Ask]:
    with import_module("loky").ProcessPoolExecutor(workers) as pool:
        yield _asked(pool)


@contextmanager
def ray(workers: int) -> Iterator[Ask]:
    cluster: Any = import_module("ray")
    cluster.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    remote = cluster.remote(max_retries=0)(task)

    def ask(*words: Any) -> Callable[[], object]:
        reference = remote.remote(*words)
        return lambda: cluster.get(reference)

    try:
        yield ask
    finally:
        cluster.shutdown()


WAYS = {"concurrent.futures": standard, "loky": loky, "ray": ray}


def lost(way: str, workers: int, seconds: float) -> tuple[int, float]:
    """(how many of the tasks gave no answer, seconds from nothing until a first, empty task was done)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, WAYS[way](workers) as ask:
        ask(TASKS, folder, 0.0)()
        ready = time.monotonic() - started
        ends = [ask(number, folder, seconds) for number in range(TASKS)]
        victim = Path(folder) / str(workers)
        while not victim.exists():
            time.sleep(0.01)
        time.sleep(seconds / 2)
        os.kill(int(victim.read_text()), signal.SIGKILL)
        return sum(not _answers(end) for end in ends), ready


def _answers(end: Callable[[], object]) -> bool:
    try:
        end()
    except Exception:  # each pool has an error of its own for a worker that died
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="fewer than the tasks, so that there is a second round")
    parser.add_argument("--seconds", type=float, default=3.0, help="that each task sleeps")
    given = parser.parse_args()
    if not 1 <= given.workers < TASKS:
        parser.error(f"--workers is {given.workers}: give 1 to {TASKS - 1}, so that there is a second round")
    table = [["pool", f"tasks lost, {given.workers} workers", "seconds until a first task is done"]]
    for way in WAYS:
        if importlib.util.find_spec(way):
            count, ready = lost(way, given.workers, given.seconds)
            table.append([way, f"{count} of {TASKS}", f"{ready:.1f}"])
    print(markdown_table(table[0], table[1:]))
    print(surroundings(torch.device("cpu"))["hardware"])


if __name__ == "__main__":
    main()
