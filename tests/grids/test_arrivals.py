"""Rows as they come: sent once, and shown model by model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.grids import arrivals
from robustbench_local.grids.run import run
from robustbench_local.storage.row import Row
from robustbench_local.storage.sinks import sinks as all_sinks
from robustbench_local.storage.sinks.sink import Entry, Sink
from tests.helpers.one_grid import opened, written


class Heard(Progress):
    """What a user is told."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.blocks: list[str] = []

    def line(self, text: str) -> None:
        self.all.append(text)

    def block(self, text: str) -> None:
        self.all.append(text)
        self.blocks.append(text)


class Kept(Sink):
    """Keeps the keys of what it is sent."""

    taken: ClassVar[list[str]] = []

    def send(self, entry: Entry) -> None:
        Kept.taken.append(entry.key)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written(tmp_path)
    monkeypatch.setattr(arrivals, "_EVERY", -1.0)
    monkeypatch.setattr(arrivals, "_COSTS", float("inf"))
    monkeypatch.setattr(all_sinks, "_loaded", lambda name, folder: Kept(folder))
    monkeypatch.setattr(Kept, "taken", [])
    return tmp_path


def done(folder: Path, results: str = "rows", **overrides: Any) -> tuple[list[Row], Heard]:
    heard = Heard()
    return run(opened(folder, results, heard, **overrides)), heard


@pytest.mark.parametrize("workers", [{}, pytest.param({"executor": "local", "workers": 2}, marks=pytest.mark.slow)])
def test_each_row_is_sent_once_and_changes_no_name(folder: Path, workers: dict[str, Any]) -> None:
    rows, _ = done(folder, log=["mlflow"], **workers)
    assert sorted(Kept.taken) == sorted(row.key for row in rows)
    again, _ = done(folder, log="mlflow", **workers)
    assert [row.key for row in again] == [row.key for row in rows] and len(Kept.taken) == len(rows)
    assert {row.key for row in done(folder, "unlogged")[0]} == {row.key for row in rows}


def test_rows_that_were_there_before_are_sent_too(folder: Path) -> None:
    rows, _ = done(folder)
    assert not Kept.taken
    done(folder, log="mlflow")
    assert sorted(Kept.taken) == sorted(row.key for row in rows)


def test_a_model_that_is_done_is_shown_before_the_next_is(folder: Path) -> None:
    _, heard = done(folder)
    (shown,) = heard.blocks  # the last model's figures are in the tables of all
    assert "mnist_small" in shown and "none" in shown and "pgd" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (first, *_) = (place for place, text in enumerate(heard.all) if "bit_depth" in text)
    assert heard.all.index(shown) < first
    time.sleep(1.1)  # rows know the second in which they were written
    assert not done(folder)[1].blocks  # nothing is new


def test_a_sink_that_nobody_knows_is_a_mistake(folder: Path) -> None:
    with pytest.raises(ConfigError, match="log of grid"):
        opened(folder, "rows", log="mlfow")
