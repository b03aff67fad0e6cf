"""By Slurm: an array of N jobs, each of which is worker=i/N on the folder of results, which all machines must share.

Slurm finds them a place, and puts them back into its queue where it needs that place (preemption) or their time is up:
what is done is not done again, so such a job goes on where it was.
"""

from __future__ import annotations

import importlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import ConfigError, RobustBenchError, said
from robustbench_local.core.progress import Progress
from robustbench_local.grids.executors import local
from robustbench_local.grids.executors.child import Orders, Spoken
from robustbench_local.grids.executors.endings import last_words
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.status import Watch

FOLDER = "slurm"  # of the jobs' words, in that of the running grid
_LOOK = 2.0  # seconds between two looks at how far all is
_TIMES = 100  # how often a job whose time is up is put back
_DEFAULTS: dict[str, Any] = {"name": "robustbench", "timeout_min": 24 * 60}


@dataclass(frozen=True)
class Share:
    """What one job of the array does: a worker's share of the cells, by a process that is looked after."""

    orders: Orders

    def __call__(self) -> None:
        with guarded():
            grid = self.orders.opened(Spoken())
            try:
                local.run(grid)
            finally:
                grid.running.claims.leave()

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again, when Slurm takes the place away."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)


def run(grid: Grid) -> None:
    """Every job of the grid that is not done; an interruption cancels the array."""
    if grid.config.workers is None:
        raise ConfigError("executor=slurm needs workers=N: how many jobs the array has")
    executor = _executor(grid.running.folder / FOLDER, grid.config.cluster or {})
    device = grid.config.device if grid.config.device == "auto" else grid.builder.device.type
    workers = grid.config.workers
    threads = int(executor.parameters.get("cpus_per_task") or 1)
    shares = [Share(_orders(grid, f"{place}/{workers}", threads, device)) for place in range(workers)]
    try:
        with executor.batch():
            jobs = [executor.submit(share) for share in shares]
    except subprocess.CalledProcessError as error:
        raise RobustBenchError(f"Slurm refuses the array: {(error.stderr or error.output or '').strip()}") from error
    array = jobs[0].job_id.partition("_")[0]
    grid.progress.line(f"array {array} of {workers} jobs; what they say is in {grid.running.folder / FOLDER}")
    try:
        _wait(grid, jobs, array if executor.cluster == "slurm" else None)
    finally:
        for job in jobs:
            if not job.paths.result_pickle.exists():
                job.cancel(check=False)
    _say_failures(jobs, grid.progress)


def _orders(grid: Grid, worker: str, threads: int, device: str) -> Orders:
    """Those of worker=i/N, which has neither an executor nor workers of its own."""
    config = replace(grid.config, worker=worker, workers=None, executor=None, cluster=None)
    return Orders.of(replace(grid, config=config), worker, threads, device)


def _executor(folder: Path, told: Mapping[str, Any]) -> Any:
    """submitit's, for Slurm or, where `cluster` says so (cluster: local), for processes of this machine.

    told: parameters as submitit names them (timeout_min, mem_gb, gpus_per_node, slurm_partition, ...). ConfigError for
    others, or where there is no Slurm.
    """
    try:
        submitit = importlib.import_module("submitit")
    except ImportError as error:
        raise ConfigError(f"executor=slurm needs submitit: pip install 'robustbench_local[slurm]' ({error})") from error
    where = str(told.get("cluster", "slurm"))
    parameters = {**_DEFAULTS, **{key: value for key, value in told.items() if key != "cluster"}}
    try:
        executor = submitit.AutoExecutor(folder=str(folder / "%j"), cluster=where, slurm_max_num_timeout=_TIMES)
        executor.update_parameters(**parameters)
    except (NameError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"cluster, for Slurm, is {dict(told)}: {said(error)}") from error
    return executor


def _wait(grid: Grid, jobs: Sequence[Any], array: str | None) -> None:
    """Until every job has ended. array: its name at Slurm, None for processes of this machine."""
    watch = Watch(grid.store, grid.running)
    while not all(job.paths.result_pickle.exists() for job in jobs):
        if not _queued(array) if array else all(job.done() for job in jobs):
            return
        status = watch.look()
        grid.progress.advance(status.in_short(), status.share)
        time.sleep(_LOOK)


def _queued(array: str) -> bool:
    """Whether Slurm still has any job of the array: sacct, which submitit asks, is not kept everywhere."""
    asked = ["squeue", "--noheader", f"--jobs={array}", "--format=%i"]
    looked = subprocess.run(asked, capture_output=True, text=True)
    return bool(looked.stdout.strip()) or (looked.returncode != 0 and "Invalid job id" not in looked.stderr)


def _say_failures(jobs: Sequence[Any], progress: Progress) -> None:
    """Which jobs of the array did not end well, and their last words. RobustBenchError where none did."""
    failed = {}
    for job in jobs:
        with suppress(Exception):  # submitit's own, and whatever the job raised
            if not job.paths.result_pickle.exists() or job.exception() is not None:
                failed[job.job_id] = last_words(job.paths.stderr) or last_words(job.paths.stdout) or "no words"
    for name, words in failed.items():
        progress.line(f"job {name} of the array failed: {words}")
    if len(failed) == len(jobs):
        raise RobustBenchError(f"no job of the array ended well: {next(iter(failed.values()))}")
