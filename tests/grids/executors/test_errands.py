"""Jobs that are packed, done by a process that sees nothing of this grid's folder, and taken in again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.core.errors import RobustBenchError, StoreError
from robustbench_local.grids.executors import remote
from robustbench_local.grids.executors.errands import Errands
from robustbench_local.grids.executors.remote import AUDIT, MODEL, Report, carry_out
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group
from robustbench_local.grids.run import run
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from tests.helpers.one_grid import GRID, opened, written
from tests.helpers.outcomes import differences, outcome
from tests.helpers.rogues import install_rogues


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    for told in remote._told.values():
        told.end()
    remote._told.clear()


def sent(errands: Errands, group: Group, what: int | str, rows: slice | None = None) -> Report:
    return carry_out(errands.of(group, what, rows), errands.results(group, what), errands.kept(group))


def plugged(folder: Path, monkeypatch: pytest.MonkeyPatch, attacks: str, **more: Any) -> Grid:
    """A grid of a stranger's attacks."""
    install_rogues(folder)
    monkeypatch.syspath_prepend(str(folder))
    text = GRID.replace("[fgsm, {pgd: {steps: 3}}]", attacks).replace("none, {bit_depth: {bits: 3}}", "none")
    written(folder, text.replace("mnist_small", "rogues:other") + "allow_chance: true\n")
    return opened(folder, "out", **more)


@pytest.mark.slow
def test_what_is_done_elsewhere_is_sent_back_and_the_same(tmp_path: Path) -> None:
    written(tmp_path)
    run(opened(tmp_path, "inline"))
    grid = opened(tmp_path, "sent")
    errands = Errands(grid)  # without a token: nobody knows the folder
    for group in grid.groups:
        for what in (MODEL, *range(len(group.cells)), AUDIT):
            report = sent(errands, group, what)
            assert report.death is None and report.wrong is None
            assert not any(name.startswith(("running/claims", "running/pulses")) for name in report.results)
            errands.take_in(report)
            assert grid.running.keys(group.place) is not None
        assert grid.running.is_audited(group.place)
    run(opened(tmp_path, "sent"))  # which finds all of it, and writes the tables
    assert differences(outcome(tmp_path / "inline" / "one"), outcome(tmp_path / "sent" / "one")) == []
    drawn, there = (sorted((tmp_path / name / "one/pictures").iterdir()) for name in ("inline", "sent"))
    assert len(drawn) == 2 and [file.read_bytes() for file in drawn] == [file.read_bytes() for file in there]
    assert len(remote._told) == 1  # one process did it all


@pytest.mark.slow
def test_parts_of_a_cell_are_done_anywhere_and_put_together_anywhere_else(tmp_path: Path) -> None:
    written(tmp_path, GRID.replace("none, {bit_depth: {bits: 3}}", "none"))
    run(opened(tmp_path, "whole"))
    grid = opened(tmp_path, "sent", shard=10)
    errands, (group,) = Errands(grid), grid.groups
    errands.take_in(sent(errands, group, MODEL))
    for cell in range(len(group.cells)):
        for rows in (slice(10, 20), slice(0, 10), slice(20, 24)):
            errands.take_in(sent(errands, group, cell, rows))
        assert grid.store.rows() == [] or cell
        key = (grid.running.keys(0) or [])[cell]
        assert len(errands.parts(str(key))) == 6  # a record and arrays of each
        report = sent(errands, group, cell)
        assert not any("shards" in name for name in report.results)  # none was made again
        errands.take_in(report)
    run(opened(tmp_path, "sent"))
    whole, found = (outcome(tmp_path / name / "one") for name in ("whole", "sent"))
    assert found.keys() == whole.keys()
    for name in (name for name in whole if name.startswith("rows/")):
        assert found[name]["results"]["robust_accuracy"] == whole[name]["results"]["robust_accuracy"]


def test_with_the_token_nothing_is_sent_and_the_folder_is_written(tmp_path: Path) -> None:
    written(tmp_path)
    grid = opened(tmp_path, "sent")
    errands, group = Errands(grid), grid.groups[0]
    with errands.token():
        assert sent(errands, group, MODEL).results == {}
        report = sent(errands, group, 0)
    assert report.results == {} and len(grid.store.rows()) == 1
    assert any("clean" in line for line in report.lines)
    assert not list(grid.running.folder.glob("sent-*"))


@pytest.mark.slow
def test_what_a_model_learnt_is_sent_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, other = (str(tmp_path / name) for name in ("here", "there", "other"))
    monkeypatch.setenv(CACHE_VARIABLE, here)
    written(tmp_path, GRID.replace("none, {bit_depth: {bits: 3}}", "density_detector"))
    grid = opened(tmp_path, "sent")
    errands, (group,) = Errands(grid), grid.groups
    assert errands.kept(group) == {}
    monkeypatch.setenv(CACHE_VARIABLE, there)
    report = sent(errands, group, MODEL)
    assert [name.split("/")[0] for name in report.kept] == ["fitted"]
    monkeypatch.setenv(CACHE_VARIABLE, here)
    errands.take_in(report)
    assert errands.kept(group) == report.kept
    kept, results = errands.kept(group), errands.results(group, 0)
    monkeypatch.setenv(CACHE_VARIABLE, other)
    remote._told.popitem()[1].end()  # what it holds ready, it learnt on that other machine
    report = carry_out(errands.of(group, 0), results, kept)
    assert not any("fitting" in line for line in report.lines)
    assert (Path(other) / next(iter(kept))).exists()


@pytest.mark.slow
def test_a_plug_in_that_crashes_ends_its_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = plugged(tmp_path, monkeypatch, "[segfaults, fgsm]")
    errands, (group,) = Errands(grid), grid.groups
    with errands.token():
        sent(errands, group, MODEL)
        keys = grid.running.keys(0)
        report = sent(errands, group, 0)
        assert keys is not None and report.doing == keys[0]
        assert report.death is not None and report.death.how == "SIGSEGV"
        assert "in string_at" in report.death.last_words
        assert sent(errands, group, 1).death is None  # by another process
    assert [row.definition["attack"] for row in grid.store.rows()] == ["fgsm"]


@pytest.mark.slow
def test_a_plug_in_that_hangs_is_ended_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = plugged(tmp_path, monkeypatch, "[hangs]", timeout="2s")
    errands, (group,) = Errands(grid), grid.groups
    with errands.token():
        report = sent(errands, group, 0)
    assert report.death is not None and report.death.timed_out and "timeout=2s" in report.death.how


def test_what_must_stop_the_grid_does(tmp_path: Path) -> None:
    written(tmp_path)
    grid = opened(tmp_path, "sent")
    with pytest.raises(RobustBenchError, match="the disk is full"):
        Errands(grid).take_in(Report([], wrong="StoreError: the disk is full"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "rows/../../outside"])
def test_a_file_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="below"):
        remote.write(tmp_path / "inside", {name: b""})
    assert not (tmp_path / "outside").exists()


def test_a_file_that_is_there_is_kept_unless_written_anew(tmp_path: Path) -> None:
    for content, anew in ((b"first", False), (b"second", False)):
        remote.write(tmp_path, {"a/b": content}, anew=anew)
    assert (tmp_path / "a" / "b").read_bytes() == b"first"
    remote.write(tmp_path, {"a/b": b"third"})
    assert (tmp_path / "a" / "b").read_bytes() == b"third"


def test_whoever_watches_a_process_loads_no_torch() -> None:
    code = "import sys, robustbench_local.grids.executors.remote; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "False", done.stderr
