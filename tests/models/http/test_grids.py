"""Grids on a model behind HTTP: the module's verdicts, nothing paid twice however a run ends, no key in any file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_local.core.progress import Progress
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.grids.run import run_grid
from robustbench_local.models.load import load_model
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.model_server import Fault, Served, digit_net, serving

GRID = """
data: mnist
source: bundled
n: 4
attacks: [{square: {steps: 20}}]
threats: ["linf:0.2"]
allow_chance: true
device: cpu
about: {endpoint: {longest_wait: 0.01, batch: 16}}
"""
RUN = "import sys; from robustbench_local.grids.run import run_grid; run_grid('both.yaml', models=[sys.argv[1]])"
BOTH = GRID.replace("square: {steps: 20}", "square: {steps: 20}}, {hopskipjump: {steps: 1}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(GRID)
    Path("both.yaml").write_text(BOTH)
    return tmp_path


def bits(rows: list[Row]) -> list[list[bool]]:
    """Which images are robust, row by row."""
    store = Store(f"results/{rows[0]['grid']}")
    assert all(row.ok for row in rows), [row.get("error") for row in rows]
    return [store.arrays(row.key, "robust")["robust"].tolist() for row in rows]


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_score_and_label_attacks_reach_the_modules_verdicts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hopskipjump through labels alone, square through scores, each in JSON and in bytes."""
    Path("served_nets.py").write_text("from tests.helpers.model_server import digit_net as net\n")
    monkeypatch.syspath_prepend(folder)
    module = bits(run_grid("both.yaml", models=["served_nets:net"], about=None))
    assert 0 < sum(map(sum, module)) < 8  # some fall and some stand
    net = digit_net()
    with serving(net) as scores, serving(net, labels=True) as labels, serving(net, binary=False) as as_json:
        for served in (scores, as_json):
            assert bits(run_grid("both.yaml", models=[served.address()])) == module
        about = {"classes": 10, "endpoint": {"batch": 64}}
        (only,) = bits(
            run_grid("both.yaml", models=[labels.address(True)], about=about, attacks=[{"hopskipjump": {"steps": 1}}])
        )
        assert only == module[1]


def counted(interrupt: Callable[[Served, subprocess.Popen[bytes]], object] | None) -> tuple[Counter[str], list[Row]]:
    """How often each image was answered, and the rows, of runs until one ends well; the first is interrupted."""
    with serving(digit_net()) as served:
        command = [sys.executable, "-c", RUN, served.address()]
        if interrupt is not None:
            first = subprocess.Popen(command)
            interrupt(served, first)
            assert first.wait() == -signal.SIGKILL
            served.before = lambda images: None
        rows = run_grid("both.yaml", models=[served.address()])
        return served.answered, rows


def test_a_killed_run_is_resumed_and_pays_for_nothing_twice() -> None:
    whole, rows = counted(None)
    expected = bits(rows)

    def in_the_second_cell(served: Served, run: subprocess.Popen[bytes]) -> None:
        def kill(images: np.ndarray[Any, Any]) -> None:
            if served.images > 0.6 * whole.total():
                os.kill(run.pid, signal.SIGKILL)
                run.wait()

        served.before = kill

    resumed, rows = counted(in_the_second_cell)
    # the request in flight was answered to nobody: at most that one is asked again
    asked_more = resumed - whole
    assert bits(rows) == expected and 0 < asked_more.total() <= 16 and set(asked_more.values()) == {1}
    assert whole.keys() == resumed.keys()


@pytest.mark.slow
def test_runs_killed_at_random_instants_pay_for_one_request_more_at_most() -> None:
    started = time.monotonic()
    whole, rows = counted(None)
    seconds, expected = time.monotonic() - started + 3, bits(rows)
    chance = np.random.default_rng(5)

    def at_random(_: Served, run: subprocess.Popen[bytes]) -> None:
        time.sleep(chance.uniform(2, seconds))
        run.kill()

    for _ in range(12):
        resumed, rows = counted(at_random)
        assert bits(rows) == expected and (resumed - whole).total() <= 16


def test_a_server_that_dies_and_comes_back_is_asked_only_what_is_missing() -> None:
    with serving(digit_net()) as served:
        whole = run_grid("net.yaml", models=[served.address()])
        asked = served.answered.copy()
        expected = bits(whole)
    with serving(digit_net()) as served:
        served.faults = lambda number: Fault(status=503) if number >= 12 else None
        failed = run_grid("net.yaml", models=[served.address()])
        assert not any(row.ok for row in failed) and "503" in failed[0]["error"]["message"]
        served.faults = lambda number: None
        # a new process would begin with nothing in memory, and so does a grid opened anew
        assert bits(run_grid("net.yaml", models=[served.address()])) == expected
        assert served.answered == asked


def test_the_budget_stops_every_cell_and_a_larger_one_goes_on() -> None:
    with serving(digit_net()) as served:
        about: dict[str, Any] = {"endpoint": {"queries": 40, "batch": 16}}
        rows = run_grid("net.yaml", models=[served.address()], about=about)
        assert [row.ok for row in rows] == [False] and served.images <= 40
        assert all("budget of 40 queries" in row["error"]["message"] for row in rows)
        about["endpoint"]["queries"] = 100_000
        assert all(row.ok for row in run_grid("net.yaml", models=[served.address()], about=about))


def test_an_image_is_asked_about_no_more_than_is_allowed() -> None:
    x, _ = load_data("mnist", n=1, source="bundled")
    with serving(digit_net()) as served:
        y = served.net(x).argmax(1)
        for most in (20, 60):
            model = load_model(served.address(), about={"endpoint": {"queries_per_image": most}, "version": str(most)})
            before = served.images
            evaluate(model, x, y, "square", "linf:0.01", steps=500)
            assert most / 2 < served.images - before <= most
        (row,) = run_grid(
            "net.yaml", models=[served.address()], attacks=["square"], about={"endpoint": {"queries_per_image": 20}}
        )
        assert row.definition["budget"] == 17  # what the judge itself asks comes on top


def test_a_dry_run_and_the_start_say_the_price_and_a_dry_run_asks_nothing() -> None:
    about = {"endpoint": {"price": 0.25, "currency": "EUR", "queries": 5000, "per_second": 1e6}}
    with serving(digit_net()) as served:
        said, started = Lines(), Lines()
        how: dict[str, Any] = {"models": [served.address()], "about": about, "threats": ["linf:0.01"]}
        rows = run_grid("net.yaml", **how, dry_run=True, progress=said)
        (line,) = [line for line in said.lines if "EUR" in line]
        most = sum(row["queries"] for row in rows)
        assert served.requests == 0 and f"at most {most:,} queries, {most / 4:,.2f} EUR" in line
        assert "5,000 of 5,000 are left" in line
        run_grid("net.yaml", **how, progress=started)
        assert line in started.lines and served.images <= most
        again = Lines()
        run_grid("net.yaml", **how, progress=again)
        assert not any("EUR" in line for line in again.lines)  # nothing is left to do
        assert any("paid for by the question" in line for line in started.lines)


def test_a_key_is_in_nothing_that_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NET_KEY", "Bearer s3cr3t-k3y")
    about = {"endpoint": {"headers": {"Authorization": "NET_KEY", "X-Key": "NET_KEY"}, "longest_wait": 0.01}}
    with serving(digit_net()) as served:
        echo = f"not with {os.environ['NET_KEY']}".encode()
        served.faults = lambda number: Fault(status=403, body=echo) if number == 12 else None
        rows = run_grid("net.yaml", models=[served.address()], about=about, save="x_adv")
        assert [row.ok for row in rows].count(False) == 1 and served.seen_headers[-1]["X-Key"] == "Bearer s3cr3t-k3y"
    written = [file for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 6
    for file in written:
        assert b"s3cr3t" not in file.read_bytes(), file
    assert "s3cr3t" not in "".join(capfd.readouterr())


def test_the_net_is_the_same_in_any_batch() -> None:
    """Else the verdicts compared above could differ by rounding."""
    x, net = torch.rand(40, 1, 28, 28), digit_net()
    assert torch.equal(net(x), torch.cat([net(image[None]) for image in x]))
