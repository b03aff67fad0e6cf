"""What was not audited says so: in the table, on the page, in every file, and again when these are made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.audit import escalation
from robustbench_local.audit.finding import Status
from robustbench_local.audit.records import RETRIED, audits
from robustbench_local.audit.retrying import Retrying
from robustbench_local.cli.main import main
from robustbench_local.core.errors import ModelError
from robustbench_local.grids.run import run_grid
from robustbench_local.report.results import Results
from robustbench_local.report.statistics import Statistics
from robustbench_local.report.words import answer
from robustbench_local.report.write import write_report
from robustbench_local.storage.store import Store
from tests.helpers.packed import unpacked
from tests.helpers.rows import a_row, stored

BLACK_BOX = """
import torch
from robustbench_local import load_model

class Box(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = load_model("zoo:mnist/none")
    def forward(self, x):
        with torch.no_grad():
            return self.net(x)

def model():
    return Box()
"""
FILES = ("table.md", "table.csv", "table.tex", "table.json", "index.html")
N = 12


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "black_box.py").write_text(BLACK_BOX)
    about = {"data": "mnist", "n": N, "source": "bundled", "models": "black_box:model", "defenses": "none"}
    about |= {"attacks": ["noise"], "threats": "linf:0.2"}
    (tmp_path / "mine.yaml").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(here: Path) -> Store:
    run_grid("mine.yaml", results=str(here))
    return Store(here / "mine")


def test_a_model_without_gradients_is_audited_by_scores(here: Path) -> None:
    """Noise breaks next to nothing, a thousand queries most: the audit must not give up for lack of gradients."""
    (audit,) = audits(run(here))
    (retry,) = audit.retries
    assert retry.attack == "square" and len(retry.broken) > retry.asked / 2
    (finding,) = [each.finding for each in audit.findings if each.finding.check == RETRIED]
    assert finding.status is not Status.UNCHECKED
    assert "square with 1,000 queries succeeds" in finding.evidence and "best failed, ModelError" in finding.evidence
    results = Results.read([here / "mine"])
    (table,) = results.tables()
    assert not table.lines[0].unaudited and table.lines[0].worst[0] is not None
    assert table.lines[0].worst[0].value < 0.5
    assert "<bdi>square (audit)</bdi>" in (here / "mine" / "index.html").read_text()


def test_an_audit_that_fails_leaves_its_reason_everywhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*given: Any) -> None:
        raise ModelError("the budget\nof this endpoint is spent")

    with monkeypatch.context() as patch:
        patch.setattr(Retrying, "_try", dies)
        store = run(here)
    folder, reason = store.folder, "ModelError: the budget of this endpoint is spent"
    first = {name: (folder / name).read_text() for name in FILES}
    for name, text in first.items():
        assert "ot audited" in text and reason in text.replace("\\n", " "), name
    assert main(["report", str(folder)]) == 0
    assert {name: (folder / name).read_text() for name in FILES} == first
    (table,) = Results.read([folder]).tables()
    assert answer(table).endswith("It was not audited.")
    monkeypatch.setattr(escalation, "BLIND", ("square", {"steps": 10}))
    run(here)  # what failed is tried again
    assert audits(store)[0].retries[0].asked == N and "ot audited" not in (folder / "table.md").read_text()


@pytest.mark.parametrize("kept", [0, 1])
def test_rows_that_no_audit_has_seen_say_so(kept: int, tmp_path: Path) -> None:
    made = [a_row([1] * 20, attack=name, ids="0:20") for name in ("pgd", "fgsm")]
    stored(tmp_path, *made, audited=False)
    if kept:
        stored(tmp_path, made[0])
    results = Results.read([tmp_path])
    (table,) = write_report(results, tmp_path)
    expected = "1 of 2 attacks ran since" if kept else "no audit of it is kept beside its rows"
    assert table.lines[0].unaudited == expected
    assert table.notes == (f"preact_small / none: not audited: {expected}",)
    (below,) = unpacked(tmp_path / "index.html")["opened"].values()
    assert f"Not audited: {expected}." in below
    ranks = Statistics(results.rows, results.arrays, audits=results.audits).ranks()
    assert ranks.frame["caution"].tolist() == [f"not audited: {expected}"]


def test_what_all_audits_have_seen_says_nothing(tmp_path: Path) -> None:
    row, bits = a_row([1] * 20, ids="0:20")
    stored(tmp_path, (row, np.array(bits)))
    (table,) = Results.read([tmp_path]).tables()
    assert not table.lines[0].unaudited and not table.notes
