"""The report card: its order, its numbers, what its file says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from robustbench_local.audit.card import Card
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Status, Timed
from robustbench_local.cli.main import main

KEYS = {"schema", "status", "clean", "evaluated", "robust", "difference", "interval", "images", "threat", "seconds"}
ABOUT = {
    "model",
    "weights_digest",
    "data",
    "data_digest",
    "ids",
    "attack",
    "seed",
    "effort",
    "surrogates",
    "environment",
}
OF_FINDING = {"check", "status", "evidence", "figures", "source", "advice", "seconds", "cpu"}


def shown(card: Card, verbose: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    card.show(console, verbose=verbose)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_faults_come_first_the_worst_first() -> None:
    statuses = (Status.UNCHECKED, Status.SOUND, Status.SUSPICIOUS, Status.BROKEN)
    card = Card(
        tuple(Timed(f"check {each.name}", each, "found " + 40 * "it ", seconds=float(each)) for each in statuses),
        "linf:0.1",
        50,
        0.9,
        0.2,
        10.0,
        0.5,
    )
    lines = shown(card)
    assert lines[0].startswith("BROKEN") and "50.0 % robust" in lines[1]
    order = [line.split()[0] for line in lines if ": found" in line]
    assert order == ["broken", "suspicious", "sound", "unchecked"]
    assert all(len(line) <= 100 for line in lines)
    assert card.difference == 0.3 and card.interval is not None and card.interval[0] < 0.5 < card.interval[1]
    assert "check BROKEN" in next(line for line in shown(card, verbose=True) if "of processor" in line)


def test_effort_scales_all_that_is_counted_but_the_set_up() -> None:
    usual, twice = Effort(), Effort().scaled(2)
    assert (twice.steps, twice.queries, twice.walked, twice.whole) == (
        2 * usual.steps,
        2 * usual.queries,
        2 * usual.walked,
        2 * usual.whole,
    )
    assert (twice.few, twice.process, twice.best) == (usual.few, usual.process, 2 * usual.best)
    assert Effort().scaled(0.001).steps == 1


def test_the_file_of_a_card_says_what_it_is_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "card.json"
    words = ["data=mnist", "threat=linf:0.3", "n=12", "effort=0.1", "source=bundled", "surrogates=[]", f"out={path}"]
    assert main(["audit", "zoo:mnist/adversarial_training", *words, "--json"]) in (0, 3)
    card = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out) == card
    assert {*card} == KEYS | ABOUT | {"environment", "findings"}
    assert all({*finding} == OF_FINDING for finding in card["findings"])
    assert card["findings"][-1]["check"] == "the number to believe" and len(card["ids"]) == card["images"] == 12
