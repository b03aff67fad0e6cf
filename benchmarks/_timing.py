"""What the benchmarks share: two jobs timed in turn in one process, and the line that says where."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from robustbench_local.core.device import hardware as device_name
from robustbench_local.core.device import synchronise

Job = Callable[[], object]


def now(device: torch.device) -> float:
    """Seconds by the wall's clock; with one CPU thread, those that this process had a core for.

    Other work on the machine takes cores away, and leaves that time as it is.
    """
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def timed(job: Job, device: torch.device) -> tuple[Any, float]:
    """What the job returns, and the seconds it took."""
    with torch.random.fork_rng():  # peers draw from the global generator
        started = now(device)
        result = job()
        synchronise(device)
        return result, now(device) - started


def pairs(first: Job, second: Job, device: torch.device) -> Iterator[tuple[tuple[Any, float], tuple[Any, float]]]:
    """(result, seconds) of both, without end; each is the first to run in every other pair."""
    while True:
        one = timed(first, device)
        yield one, timed(second, device)
        other = timed(second, device)
        yield timed(first, device), other


def hardware(device: torch.device) -> str:
    """The device's name, of a CPU its maker's."""
    if device.type != "cpu":
        return device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def surroundings(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that a figure belongs to."""
    return {
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
