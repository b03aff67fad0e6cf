"""Quantised and pruned models in a grid: rows of their own, named by what they are, done once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.cli.main import main
from robustbench_local.core.errors import ModelError
from robustbench_local.core.progress import Progress
from robustbench_local.gallery.rebuild import check_trust, model_of
from robustbench_local.grids.run import run_grid
from robustbench_local.models.int8 import int8_share
from robustbench_local.models.variants import make_variant
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row
from robustbench_local.training.builder import ModelBuilder

NETS = """
import torch
from torch import nn

def Net():
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.linspace(-0.3, 0.3, parameter.numel()).mul(97).sin().view_as(parameter))
    return net
"""

GRID = """
data: mnist
source: bundled
n: 16
models:
  - zoo:mnist/none
  - {name: "zoo:mnist/none", variant: int8}
  - {name: "zoo:mnist/none", variant: int8_dynamic}
  - {name: "zoo:mnist/none", variant: "pruned:0.5"}
  - {name: mnist_small, variant: int8}
attacks: [fgsm]
threats: ["linf:0.3"]  # which breaks them all, so that no stronger attack is tried
device: cpu
"""


class Record(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shipped.yaml").write_text(GRID)
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(**overrides: Any) -> list[Row]:
    return run_grid("shipped.yaml", **overrides)


def test_every_variant_has_a_row_of_its_own_and_is_done_once() -> None:
    rows = grid()
    assert [row.model for row in rows] == [
        "zoo:mnist/none",
        "zoo:mnist/none int8",
        "zoo:mnist/none int8_dynamic",
        "zoo:mnist/none pruned:0.5",
        "mnist_small int8",
    ]
    assert all(row.ok and row.results["clean_accuracy"] >= 0.95 for row in rows)
    assert len({row.key for row in rows}) == 5
    zoo, int8, _, _, trained = (row.definition["weights_digest"] for row in rows)
    assert int8 == trained != zoo  # the zoo's network is what that architecture's recipe gave
    said = [row.definition.get("variant") for row in rows]
    assert said == [None, "int8", "int8_dynamic", "pruned:0.5", "int8"] and "variant" not in rows[0].definition
    record = Record()
    assert [row.key for row in grid(progress=record)] == [row.key for row in rows]
    assert sum("done before" in line for line in record.lines) == 5
    assert {row["status"] for row in grid(dry_run=True)} == {"done"}


def test_a_row_is_named_by_the_calibration_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [{"name": "zoo:mnist/none", "variant": each} for each in ("int8", "pruned:0.5")]
    before = grid(models=models)
    monkeypatch.setattr("robustbench_local.training.calibration.COUNT", 16)
    after = grid(models=models, force=True)
    assert before[0].key != after[0].key and before[0]["origin"] != after[0]["origin"]
    assert before[1].key == after[1].key


def test_int8_that_another_machine_calibrated_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges differ in their last bits between processors, and so do digests."""
    models = [{"name": "zoo:mnist/none", "variant": "int8"}]
    (there,) = grid(models=models)

    def elsewhere(net: torch.nn.Module, variant: str, calibration: torch.Tensor | None = None) -> torch.nn.Module:
        assert calibration is not None
        return make_variant(net, variant, calibration * (1 - 1e-6))

    monkeypatch.setattr("robustbench_local.training.builder.make_variant", elsewhere)
    record = Record()
    (here,) = grid(models=models, progress=record)
    assert here.key == there.key and any("on another machine" in line for line in record.lines)


def test_defenses_go_around_the_variant() -> None:
    (row,) = grid(models=[{"name": "mnist_small", "variant": "int8"}], defenses=["bit_depth"])
    assert row.ok and (row.model, row.defense) == ("mnist_small int8", "bit_depth")


def test_a_model_of_a_users_own_file() -> None:
    models: list[Any] = [{"name": "nets.py:Net", "variant": each} for each in ("int8", "pruned:0.5")]
    rows = grid(models=["nets.py:Net", *models], allow_chance=True)
    assert all(row.ok for row in rows) and len({row.key for row in rows}) == 3
    assert len({row.definition["behaviour_digest"] for row in rows}) == 1


def test_what_cannot_be_is_said_before_or_beside() -> None:
    with pytest.raises(ModelError, match='unknown variant "int9"'):
        grid(models=[{"name": "zoo:mnist/none", "variant": "int9"}])
    (Path.cwd() / "nets.py").write_text("def Net(x):\n    return x.reshape(len(x), -1)[:, :10]\n")
    about = {"access": "scores", "classes": 10}
    models = [{"name": "nets.py:Net", "variant": "int8", "about": about}, "zoo:mnist/none"]
    refused, other = grid(models=models, attacks=[{"square": {"steps": 20}}], n=4)
    assert "another program answers" in refused["error"]["message"] and other.ok


def test_the_model_of_a_row_is_made_again() -> None:
    (row,) = grid(models=[{"name": "zoo:mnist/none", "variant": "int8"}])
    check_trust([row], trust=False)  # the zoo's, whatever it became
    made = model_of(row, ModelBuilder(torch.device("cpu"), "bundled"))
    assert weights_digest(made) == row.definition["weights_digest"] and int8_share(made) == 1


def test_audit_of_a_variant(tmp_path: Path) -> None:
    words = ["data=mnist", "threat=linf:0.3", "n=8", "effort=0.02", "source=bundled", "surrogates=[]"]
    assert main(["audit", "zoo:mnist/adversarial_training", *words, "variant=int8", f"out={tmp_path / 'card'}"]) in (
        0,
        3,
    )
    card = json.loads((tmp_path / "card").read_text())
    assert card["variant"] == "int8" and card["weights_digest"]
    assert main(["audit", "zoo:mnist/none", *words, "variant=int9"]) == 2
