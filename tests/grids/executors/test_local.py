"""Workers of this machine: the rows of inline, whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.cli.main import main
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.executors.endings import how_it_ended
from robustbench_local.grids.run import run_grid
from robustbench_local.grids.status import watch
from robustbench_local.storage.claims import Claims
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.rogues import install_rogues

GRID = {
    "data": "mnist",
    "source": "bundled",
    "n": 12,
    "models": ["rogues:right"],
    "threats": ["linf:0.1"],
    "device": "cpu",
}
OF_WHO_MEASURED = dict.fromkeys(("seconds", "checked_forwards", "judged_forwards"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_rogues(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rogues", raising=False)
    return tmp_path


def wrote(attacks: list[Any], **settings: Any) -> str:
    Path("toy.yaml").write_text(json.dumps({**GRID, "attacks": attacks, **settings}))
    return "toy.yaml"


def measured(row: Row) -> Any:
    return row.key, {**row.results, **OF_WHO_MEASURED} if row.ok else row.failure


def assert_same(rows: list[Row], others: list[Row]) -> None:
    """Bit for bit, their arrays too."""
    assert [measured(row) for row in rows] == [measured(row) for row in others]


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_whatever_its_plugins_do_the_other_cells_are_done_and_each_is_named(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = wrote(["fgsm", "segfaults", "hangs", "dumb", {"pgd": {"steps": 3}}])
    alone = run_grid(grid, attacks=["fgsm", {"pgd": {"steps": 3}}], results="alone")
    assert main(["run", f"grid={grid}", "workers=2", "timeout=15s"]) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "segfaults linf:0.1 seed 0: crashed: 3 workers died of it, the last one of SIGSEGV" in said
    assert "Fatal Python error: Segmentation fault" in said and "rogues.py" in said, "its last words"
    assert "hangs linf:0.1 seed 0: timed out: it took longer than timeout=15s" in said
    assert "dumb linf:0.1 seed 0: Speechless: (no message: asked for one, it raised RuntimeError)" in said
    assert "3 of 5 cells failed; the same command tries them again, with retry=true those that crashed" in said
    rows = {row.attack: row for row in Store("results/toy").rows()}
    assert_same(alone, [rows["fgsm"], rows["pgd"]])
    for row in alone:
        mine, other = Store("results/toy").arrays(row.key), Store("alone/toy").arrays(row.key)
        assert all(np.array_equal(mine[name], other[name]) for name in other)
    assert not Path("results/toy/running").exists(), "all is done: nothing of it is left"
    lines = Lines()
    run_grid(grid, workers=1, progress=lines)
    assert sum("Speechless" in line for line in lines.lines) == 1, "an error is tried again"
    assert not any("SIGSEGV" in line or "timeout" in line for line in lines.lines), "but not one that crashed"


def started(*words: str) -> subprocess.Popen[bytes]:
    run = "import sys; from robustbench_local.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "run", "grid=toy.yaml", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def once(found: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What it finds, when it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it never came")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees by /proc whether processes are there")
def test_workers_end_with_whoever_started_them_and_another_goes_on(folder: Path) -> None:
    """The master is killed outright; its workers do not stay; the same command takes over what they were at."""
    wrote(["hangs", "fgsm"])
    master = started("workers=2")
    claims = Claims(Path("results/toy/running"))
    hanging = once(lambda: [pulse for pulse in claims.pulses() if "hangs" in pulse.what])[0].owner
    status = once(lambda: (now := watch(Path("results/toy"))()).done and now)
    assert status.cells == 2 and [each.label for each in status.at_work if "hangs" in each.label]
    master.kill()
    master.wait()
    once(hanging.is_gone, 20)
    once(lambda: all(pulse.owner.is_gone() for pulse in claims.pulses()), 20)
    assert not Path("results/toy/index.html").exists()
    run_grid("toy.yaml", attacks=["fgsm"])
    rows = run_grid("toy.yaml", workers=1, timeout="2s")
    assert [row.ok for row in rows] == [False, True] and rows[0].failure.startswith("timed out")


@pytest.mark.slow
def test_what_kills_exits_or_leaks_is_named_and_tried_again_only_if_asked_for(folder: Path) -> None:
    grid = wrote(["killed", "exits", "leaks", "fgsm"], memory="1500MB")
    rows = run_grid(grid, workers=2)
    assert [row.ok for row in rows] == [False, False, False, True]
    said = [row.failure for row in rows[:3]]
    assert "the last one of SIGKILL" in said[0] and "the last one of exit code 7" in said[1]
    assert "its memory" in said[2] and "a worker may hold 1.4 GiB" in said[2]
    lines = Lines()
    again = run_grid(grid, attacks=["exits"], workers=1, retry=True, progress=lines)
    assert sum("exit code 7" in line and "worker 0" in line for line in lines.lines) == 3
    assert "crashed" in again[0].failure


@pytest.mark.slow
def test_three_shares_in_three_processes_are_the_rows_of_one(folder: Path) -> None:
    attacks = ["fgsm", {"pgd": {"steps": 3}}, {"pgd": {"steps": 9}}, "deepfool"]
    grid = wrote(attacks, models=["rogues:right", "rogues:other"], threats=["linf:0.1", "l2:1"], allow_chance=True)
    alone = run_grid(grid, results="alone")
    workers = [started(f"worker={place}/3") for place in range(3)]
    said = [process.communicate()[0].decode() for process in workers]
    assert [process.returncode for process in workers] == [0, 0, 0], said
    assert_same(sorted(alone, key=lambda row: row.key), Store("results/toy").rows())
    assert Path("results/toy/index.html").exists(), "the last one writes the report"
    times = sum(text.count(": clean ") for text in said)
    assert times == len(alone), "each cell was done once"


def test_a_share_is_only_its_own_cells(folder: Path) -> None:
    lines = Lines()
    wrote(["fgsm", {"pgd": {"steps": 30}}])
    rows = run_grid("toy.yaml", worker="0/2", progress=lines)
    assert [row.attack for row in rows] == ["pgd"], "the dearer one"
    assert any("1 cells are others' and not done yet" in line for line in lines.lines)
    assert not Path("results/toy/index.html").exists()
    assert watch(Path("results/toy"))().left == ("mnist rogues:right none | fgsm linf:0.1 seed 0",)


def test_a_cell_in_parts_is_the_row_of_the_whole(folder: Path) -> None:
    grid = wrote([{"pgd": {"steps": 3}}, "universal"], n=40, batch_size=10)
    whole, lines = run_grid(grid, results="whole"), Lines()
    parts = run_grid(grid, shard=10, progress=lines)
    assert_same(whole, parts)
    for row in parts:
        mine, other = Store("results/toy").arrays(row.key), Store("whole/toy").arrays(row.key)
        assert all(np.array_equal(mine[name], other[name]) for name in other)
    assert not Path("results/toy/running").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": "inline", "workers": 2}, "workers is for workers, and executor=inline has none"),
        ({"executor": "inline", "timeout": "5s"}, "timeout is for workers"),
        ({"timeout": "soon"}, r"timeout is 'soon': it must be a time above 0"),
        ({"memory": "0GiB"}, "memory is '0GiB'"),
        ({"worker": "3/3"}, "it must be i/N"),
        ({"worker": "0/3", "workers": 2}, "leave out workers"),
        ({"worker": "0/3", "executor": "ray"}, "leave out workers"),
        ({"executor": "locale"}, "executor of grid"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_grid(wrote(["fgsm"]), **settings)
    assert not Path("results/toy/rows").exists()


def test_two_starts_in_one_process_share_the_cells(folder: Path) -> None:
    """Two masters: what one is at, the other waits for, and nothing is done twice."""
    grid = wrote([{"pgd": {"steps": 200 + step}} for step in range(6)], n=40)
    lines, rows = Lines(), []
    threads = [
        threading.Thread(target=lambda: rows.append(run_grid(grid, progress=lines, allow_chance=True)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(*rows)
    assert sum(": clean " in line for line in lines.lines) == 6


def test_a_signal_is_called_by_its_name() -> None:
    assert [how_it_ended(code) for code in (-signal.SIGSEGV, 7)] == ["SIGSEGV", "exit code 7"]
