"""Improvements that only hide the gradients: refused by the images that broke the last model, and by the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

import robustbench_local as rbl
from robustbench_local.grids import bench
from robustbench_local.regression import Outcome, measured
from robustbench_local.regression.outcome import Verdict
from robustbench_local.regression.words import reasons
from tests.helpers.checked import MASKED as MASKED_MODELS
from tests.helpers.checked import asking, folder

MASKED = {"logits x 1000": "Scaled", "a quantised front": "Quantised", "a branch without gradients": "Detached"}


def check(model: str, **settings: object) -> Outcome:
    return rbl.regression.check(**asking(model, **settings))  # type: ignore[arg-type]


@pytest.fixture
def unaudited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder(tmp_path))
    monkeypatch.setattr(measured, "_audit", lambda *_: ())
    monkeypatch.setattr(bench, "audit_and_keep", lambda *_: [])
    return tmp_path


@pytest.mark.parametrize("how", MASKED)
def test_old_images_refuse_what_only_looks_robust(unaudited: Path, how: str) -> None:
    first = check("net", update=True, keep_images=True)
    again = check("net")
    masked = check(MASKED[how])
    assert again.verdict is Verdict.HOLDS
    assert masked.rates["attacks"].value > first.rates["attacks"].value + 0.15  # what would have been reported
    assert masked.verdict is Verdict.CANNOT_JUDGE and "Gradients are masked" in reasons(masked)[0]
    assert masked.replayed is not None and masked.replayed.value <= first.rates["attacks"].value + 0.05
    before = (unaudited / "robustness.lock.json").read_bytes()
    assert check(MASKED[how], update=True, keep_images=True).verdict is Verdict.CANNOT_JUDGE
    assert (unaudited / "robustness.lock.json").read_bytes() == before  # and it is no baseline for others
    assert check(MASKED[how], at_least=0.3).verdict is Verdict.CANNOT_JUDGE
    assert check("worse").verdict is Verdict.WORSE


ZOO = """
import robustbench_local as rbl
from torch import nn

GREYS = 16

def net():
    return rbl.load_model("zoo:mnist/adversarial_training")
"""


@pytest.mark.slow
def test_the_audit_refuses_them_without_old_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_models.py").write_text(ZOO + MASKED_MODELS)
    asked = {"data": "mnist", "source": "bundled", "n": 60, "threat": "linf:0.3", "name": "net"}
    for suite in ("ci", "weak.yaml"):
        (tmp_path / "weak.yaml").write_text("data: mnist\nmodels: mnist_small\nattacks: [{pgd: {steps: 10}}]\n")
        (tmp_path / "robustness.lock.json").unlink(missing_ok=True)
        first = rbl.regression.check("zoo_models.py:net", **asked, suite=suite, update=True)  # type: ignore[arg-type]
        assert first.verdict is Verdict.HOLDS, reasons(first)
        for how, name in MASKED.items():
            for floor in ({}, {"at_least": 0.1}):
                found = rbl.regression.check(f"zoo_models.py:{name}", **asked, suite=suite, **floor)  # type: ignore[arg-type]
                assert found.verdict is Verdict.CANNOT_JUDGE, (suite, how, floor)
                assert any("the audit calls the model" in each for each in reasons(found))


@pytest.mark.slow
@pytest.mark.parametrize("threat", ["l2:2", "l1:10"])
def test_an_honest_model_outside_its_training_ball_is_judged(tmp_path: Path, threat: str) -> None:
    """There a plain PGD is far too kind, and an audit says so of PGD; the suite's `best` made the figures."""
    lock = tmp_path / "robustness.lock.json"
    about = {"data": "mnist", "source": "bundled", "n": 40, "threat": threat, "at_least": 0.01, "lock_file": lock}
    found = rbl.regression.check("zoo:mnist/adversarial_training", **about)  # type: ignore[arg-type]
    assert found.verdict is Verdict.HOLDS, reasons(found)
    assert found.rates["attacks"].value < 0.4
