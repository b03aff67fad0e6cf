"""A grid by Slurm: a real one of one node where Debian's packages are installed, submitit's own processes otherwise."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.run import run
from tests.helpers.one_grid import GRID, opened, written
from tests.helpers.outcomes import differences, outcome
from tests.helpers.slurm_here import missing, slurm_here

needs_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
needs_slurm = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_how_many_jobs_must_be_said(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match="workers=N"):
        run(opened(tmp_path, "out", executor="slurm"))


@needs_submitit
def test_a_parameter_that_submitit_does_not_know_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match="time_out_min"):
        run(opened(tmp_path, "out", executor="slurm", workers=1, cluster={"cluster": "local", "time_out_min": 3}))


@pytest.mark.slow
@needs_submitit
def test_processes_of_this_machine_give_the_same_rows(tmp_path: Path) -> None:
    written(tmp_path)
    run(opened(tmp_path, "inline"))
    run(opened(tmp_path, "slurm", executor="slurm", workers=2, cluster={"cluster": "local"}))
    assert differences(outcome(tmp_path / "inline" / "one"), outcome(tmp_path / "slurm" / "one")) == []


@pytest.mark.slow
@needs_submitit
def test_an_array_of_which_nothing_works_says_why(tmp_path: Path) -> None:
    written(tmp_path)
    grid = opened(tmp_path, "out", executor="slurm", workers=1, cluster={"cluster": "local"})
    unknown = replace(grid, config=replace(grid.config, attacks=["gone_meanwhile"]))
    with pytest.raises(RobustBenchError, match=r"no job of the array ended well: .*gone_meanwhile"):
        run(unknown)


@pytest.mark.slow
@needs_submitit
@needs_slurm
def test_what_slurm_puts_back_into_its_queue_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job is preempted by Slurm itself, the other one is warned first, as at the end of its time."""
    steps = ", ".join(f"{{pgd: {{steps: {steps}}}}}" for steps in (60, 50, 40))
    written(tmp_path, GRID.replace("n: 24", "n: 300").replace("fgsm, {pgd: {steps: 3}}", steps))
    run(opened(tmp_path, "inline"))
    with slurm_here() as environment:
        for name in ("PATH", "SLURM_CONF"):
            monkeypatch.setenv(name, environment[name])
        grid = opened(tmp_path, "slurm", executor="slurm", workers=2)
        disturber = threading.Thread(target=disturb, args=(grid,))
        disturber.start()
        run(grid)
        disturber.join()
        restarts = subprocess.run(["scontrol", "show", "job"], capture_output=True, text=True, check=True).stdout
    assert restarts.count("Restarts=1") == 2, restarts
    assert differences(outcome(tmp_path / "inline" / "one"), outcome(tmp_path / "slurm" / "one")) == []


def disturb(grid: Grid) -> None:
    """Both jobs of the array, when a first cell is at work."""
    while not grid.running.claims.all():
        time.sleep(0.1)
    listed = ["squeue", "--noheader", "--array", "--states=running", "--format=%i"]
    first, second = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["scontrol", "requeue", first], check=True, env=dict(os.environ))
    subprocess.run(["scancel", "--signal=USR2", second], check=True, env=dict(os.environ))
