"""Sparse L1 Descent: which coordinates a step moves, and robust accuracy beside Foolbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.sparse_l1 import SparseL1
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ThreatError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model


def slope(weight: Tensor) -> nn.Module:
    layer = nn.Linear(len(weight), 2)
    layer.weight.data, layer.bias.data = torch.stack([-weight, weight]), torch.tensor([1000.0, -1000.0])
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize(("sparsity", "moved"), [(0.01, 1), (0.02, 2), (0.1, 10), (1.0, 97)])
def test_a_step_moves_the_largest_gradients_that_the_box_lets_move(sparsity: float, moved: int) -> None:
    weight = torch.arange(1.0, 101.0)
    weight[::2] *= -1
    x = torch.full((1, 1, 10, 10), 0.5)
    x[..., 9, 9], x[..., 9, 8], x[..., 9, 6] = 1.0, 0.0, 0.0  # the steepest three but one cannot move that way
    attack = SparseL1(steps=1, step_size=0.4, random_start=False, loss="margin", sparsity=sparsity)
    verdict = evaluate(slope(weight), x, torch.tensor([0]), attack, "l1:5")
    delta = (verdict.x_adv - x).flatten()
    order = [place for place in range(99, -1, -1) if place not in (99, 98, 96)]
    expected = torch.zeros(100)
    expected[order[:moved]] = weight[order[:moved]].sign()
    share = 0.4 / (moved if sparsity < 1 else 100)
    assert torch.allclose(delta, expected * share, atol=1e-6)


@dataclass(frozen=True)
class Downhill(SparseL1):
    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        moved = super().step(state, oracle, x, y, threat, draws, i)["x_adv"]
        return {"x_adv": threat.project(2 * state["x_adv"] - moved, x)}


def test_its_defaults_on_mnist_and_what_a_wrong_sign_does() -> None:
    x, y = load_data("mnist", n=30, source="bundled")
    model = load_model("zoo:mnist/none")
    verdict = evaluate(model, x, y, "sparse_l1", "l1:10")
    assert verdict.robust_accuracy < 0.5
    assert ThreatModel.parse("l1:10").contains(verdict.x_adv, x).all()
    assert evaluate(model, x, y, Downhill(steps=20), "l1:10").robust_accuracy > 0.8
    assert SparseL1().cost(10) == (100, 100) and int(verdict.forwards.max()) == (100 if verdict.robust.any() else 0)


def test_it_knows_l1_only() -> None:
    x, y = load_data("mnist", n=2, source="bundled")
    with pytest.raises(ThreatError, match="it knows l1"):
        evaluate(load_model("zoo:mnist/none"), x, y, SparseL1(), "linf:0.3")
    with pytest.raises(ConfigError, match="sparsity is 0"):
        SparseL1(sparsity=0)


@pytest.mark.parametrize("eps", [5.0, 10.0])
def test_it_leaves_no_more_robust_than_foolbox(eps: float, record_property: Callable[[str, object], None]) -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = load_data("mnist", n=50, source="bundled")
    model = load_model("zoo:mnist/none")
    judged = foolbox.PyTorchModel(model, bounds=(0, 1))
    images = foolbox.attacks.SparseL1DescentAttack(steps=20)(judged, x, y, epsilons=eps)[1]
    with torch.no_grad():
        robust = (model(images).argmax(1) == y).double().mean().item()
    ours = evaluate(model, x, y, SparseL1(steps=20, step_size=0.2 * eps, random_start=False), f"l1:{eps}")
    record_property("robust after ours, after theirs", (ours.robust_accuracy, robust))
    assert ours.robust_accuracy <= robust + 0.005
