"""One cell by itself: a task and a model in, a row out, and nothing written anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.config.schema import GridConfig, ModelConfig
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import open_data
from robustbench_local.defenses.none import Undefended
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.grids.execute import Outcome, execute
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.sealing import plain
from robustbench_local.storage.store import Store
from robustbench_local.training.spec import ModelSpec
from tests.helpers.small_networks import layer


@dataclass(frozen=True)
class Dies(Attack):
    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        raise OSError("no such luck")


@pytest.fixture
def model() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        layer(net, 1).weight.copy_(torch.linspace(-1, 1, 7840).view(10, 784).cos())
        layer(net, 1).bias.zero_()
    return net


@pytest.fixture
def task(model: nn.Module) -> Task:
    config = GridConfig(data="mnist", models="toy", attacks="fgsm", allow_chance=True)
    spec = ModelSpec("mnist", ModelConfig("toys:linear"), "none", Undefended(), None)
    cell = Cell(spec, "fgsm", FGSM(), ThreatModel.parse("linf:0.1"), 0, "all")
    images = open_data("mnist", source="bundled", n=16, device=torch.device("cpu"))
    return Task("toy", cell, config, images, weights_digest(model))


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two outcomes of a cell are alike, but for the seconds it took."""
    rows = [{**each.row, "results": {**each.row["results"], "seconds": 0}} for each in (a, b)]
    arrays = a.arrays.keys() == b.arrays.keys() and all((a.arrays[key] == b.arrays[key]).all() for key in a.arrays)
    return rows[0] == rows[1] and arrays


def test_a_cell_runs_by_itself_and_twice_alike(
    task: Task, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = execute(task, model)
    assert first.row["status"] == "ok" and first.row["key"] == task.key and first.row["grid"] == "toy"
    assert same(first, execute(task, model))
    assert not list(tmp_path.iterdir())
    other = replace(task, cell=replace(task.cell, threat=ThreatModel.parse("linf:0.2")))
    assert other.key != task.key and not same(first, execute(other, model))  # the twin: another cell is told apart


def test_its_outcome_is_what_a_store_takes(task: Task, model: nn.Module, tmp_path: Path) -> None:
    outcome = execute(task, model)
    store = Store(tmp_path)
    store.write(task.key, outcome.row, outcome.arrays)
    row = store.read(task.key)
    assert row is not None and row["results"] == plain(outcome.row["results"])


def test_a_cell_that_dies_is_a_row_that_says_of_what(task: Task, model: nn.Module, tmp_path: Path) -> None:
    dying = replace(task, cell=replace(task.cell, attack_name="dies", attack=Dies()))
    outcome = execute(dying, model)
    assert outcome.row["status"] == "error" and outcome.row["error"]["message"] == "no such luck"
    assert outcome.row["key"] == dying.key and not outcome.arrays
    Store(tmp_path).write(dying.key, outcome.row, outcome.arrays)
