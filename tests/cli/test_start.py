"""How much is loaded before a command begins: help waits for no torch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "scipy", "pandas", "matplotlib", "rich", "hydra", "PIL", "jinja2", "robustbench_local.grids")


def loaded(code: str) -> set[str]:
    """The heavy modules that a fresh process has loaded after this code."""
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=known, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name for name in done.stdout.split("\n")[-2].split() if name in HEAVY}


MAIN = "from robustbench_local.cli.main import main; main({})"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["run", "--help"], ["evaluate", "--help"], ["audit", "--help"], ["report", "--help"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded(MAIN.format(arguments))


def test_help_takes_less_than_0_3_seconds_of_the_processor() -> None:
    """User and system time, which others at work do not add to; the least of three."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert not loaded(MAIN.format(["--help"]))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.3


def test_the_package_loads_what_is_asked_for() -> None:
    assert not loaded("import robustbench_local")
    assert "torch" in loaded("from robustbench_local import Draws")


def test_what_is_loaded_is_seen() -> None:
    assert loaded("import numpy, rich") >= {"numpy", "rich"}


def test_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    from robustbench_local import __version__
    from robustbench_local.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capfd.readouterr().out == f"robustbench_local {__version__}\n"
