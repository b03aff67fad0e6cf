"""Commands killed at random instants end, called again, as if nothing had happened. `make faults` kills a hundred."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLING = Path(__file__).parents[1] / "helpers" / "killing.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 0), *(pytest.param(25, seed, marks=pytest.mark.faults) for seed in range(1, 5))]
)
def test_after_a_kill_the_same_command_ends_as_if_nothing_had_happened(tmp_path: Path, kills: int, seed: int) -> None:
    paths = os.pathsep.join([str(KILLING.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(KILLING), str(tmp_path), str(kills), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout, end="")
    assert f"{kills} strikes at" in done.stdout
