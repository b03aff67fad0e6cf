"""A grid of several workers, whatever befalls them: no row is lost, doubled or half, and the tables are the same.

`make faults` kills five hundred; here it is a few of each, at instants that a seed chose.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_local.storage.store import Store
from tests.helpers.outcomes import differences, outcome
from tests.helpers.rows import a_row, stored

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="knows of processes by Linux's /proc")


def told(script: str, *words: object) -> str:
    """What a script of tests/helpers says, which ends well."""
    done = called(script, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout, end="")
    return done.stdout


def called(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(ROOT / "tests" / "helpers" / script), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("kills", "seed"), [(6, 0), *(pytest.param(125, seed, marks=pytest.mark.faults) for seed in range(1, 5))]
)
def test_workers_and_masters_may_be_killed_at_any_instant(tmp_path: Path, kills: int, seed: int) -> None:
    assert "kills in" in told("storm.py", tmp_path, kills, seed, 0.35)


@pytest.mark.faults
def test_so_may_workers_that_are_started_as_a_user_s_are(tmp_path: Path) -> None:
    assert "kills in" in told("storm.py", tmp_path, 30, 5, 5.0, "spawned")


@pytest.mark.faults
def test_rows_that_are_written_in_place_are_found_out(tmp_path: Path) -> None:
    done = called("storm.py", tmp_path, 125, 0, 0.35, "torn")
    assert done.returncode == 1 and "counts as missing" in done.stderr, done.stdout + done.stderr


FEW = {"two_masters": 1, "damage": 1}
MANY = {
    "full_disk": 1000,
    "read_only": 10,
    "vanishing": 20,
    "two_masters": 10,
    "clocks": 10,
    "out_of_memory": 20,
    "damage": 20,
}


@pytest.mark.parametrize(
    ("scenario", "cases"), [*FEW.items(), *(pytest.param(*each, marks=pytest.mark.faults) for each in MANY.items())]
)
def test_whatever_befalls_a_grid_it_ends_right_or_says_what_is_wrong(tmp_path: Path, scenario: str, cases: int) -> None:
    assert f"{scenario}, {cases} cases" in told("scenarios.py", scenario, tmp_path, 0, cases)


def results(folder: Path) -> Store:
    made = [a_row([k % 3 > 0 for k in range(40)], ids="0:40", attack=attack) for attack in ("fgsm", "pgd")]
    store = stored(folder, *made)
    (folder / "table.md").write_text("a table")
    return store


def lose(folder: Path) -> None:
    next((folder / "rows").glob("*.json")).unlink()


def double(folder: Path) -> None:
    row = next((folder / "rows").glob("*.json"))
    shutil.copy(row, row.with_name(f"{'0' * 24}.json"))


def halve(folder: Path) -> None:
    row = next((folder / "rows").glob("*.json"))
    row.write_bytes(row.read_bytes()[:100])


def halve_arrays(folder: Path) -> None:
    arrays = next((folder / "rows").glob("*.npz"))
    arrays.write_bytes(arrays.read_bytes()[:100])


def change_table(folder: Path) -> None:
    (folder / "table.md").write_text("another table")


@pytest.mark.filterwarnings("ignore:.*counts as missing")
@pytest.mark.parametrize("fault", [lose, double, halve, halve_arrays, change_table])
def test_a_row_that_is_lost_doubled_or_half_is_seen(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    results(tmp_path / "whole")
    results(tmp_path / "hit")
    whole = outcome(tmp_path / "whole")
    assert differences(whole, outcome(tmp_path / "hit")) == []
    fault(tmp_path / "hit")
    assert differences(whole, outcome(tmp_path / "hit"))
