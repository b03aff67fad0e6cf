"""All that runs on a CPU runs on a pretended accelerator too, with the CPU's results: no GPU is needed to keep it so.

The cases are in the files beside this one. They run in a process of their own, because the pretended device must be
there before the first gradient is taken (autograd counts the devices then), and so that no other test meets it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(marks: str) -> None:
    files = sorted(file.name for file in HERE.glob("on_*.py"))
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "--import-mode=importlib", "-q", "-m", marks]
    found = subprocess.run(
        [*command, *(f"tests/devices/{name}" for name in files)],
        cwd=HERE.parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{found.stdout[-20_000:]}\n{found.stderr[-2000:]}"
    assert len(files) == 5 and "passed" in found.stdout and "error" not in found.stdout


def test_one_of_each_kind() -> None:
    run("not slow")


@pytest.mark.slow
def test_all_the_others() -> None:
    run("slow")
