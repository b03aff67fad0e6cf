"""Walks with climbs at the ball's edge: inside what masked gradients hide, at the cost that it says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks._edge import CLIMB, Edge
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model


@dataclass(frozen=True)
class StaysOut(Edge):
    """The broken twin: its climbs begin at the clean image, wherever the walk has been."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        state = super().step(state, oracle, x, y, threat, draws, i)
        return state | {"x_adv": x} if i + 1 + CLIMB == self.steps else state


@pytest.mark.parametrize(
    ("threat", "attack", "rows", "alone"),
    [
        ("l2:1.5", Edge(95, FAB(targets=3)), [221, 238, 249, 253], FAB(steps=95, targets=3)),
        ("l1:7", Edge(50, FAB(targets=2)), [0, 4, 7, 16], FAB(steps=75, targets=2)),
        ("l1:10", Edge(225, PDPGD()), [13, 161, 192], PDPGD(steps=226, polish=0.4)),
    ],
)
def test_it_falls_from_the_edge_where_gradients_inside_are_masked(
    threat: str, attack: Edge, rows: list[int], alone: Attack
) -> None:
    """A network trained for L∞. The walk alone, with no fewer passes, breaks none, nor do climbs from the image."""
    x, y = load_data("mnist", 254)
    x, y, ball = x[rows], y[rows], ThreatModel.parse(threat)
    net = load_model("zoo:mnist/adversarial_training")
    found = evaluate(net, x, y, attack, ball)
    assert not found.robust.any()
    assert ball.contains(found.x_adv, x).all()
    assert sum(alone.cost(10, ball.norm)) >= sum(attack.cost(10, ball.norm))
    for twin in (alone, StaysOut(attack.steps, attack.walk)):
        assert evaluate(net, x, y, twin, ball).robust.all()


class Sure(nn.Module):
    """Always class 0 of so many, though its scores move with the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.slopes = torch.linspace(1, -1, classes)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True) * self.slopes + 9 * (self.slopes == 1)


@pytest.mark.parametrize(
    ("norm", "walk"), [(Norm.L2, FAB(targets=3)), (Norm.L1, FAB(targets=2)), (Norm.L1, PDPGD())], ids=str
)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_cost_is_as_predicted(classes: int, norm: Norm, walk: FAB | PDPGD) -> None:
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    attack = Edge(CLIMB + 4, walk)
    verdict = evaluate(Sure(classes), x, torch.zeros(2, dtype=torch.int64), attack, ThreatModel(norm, 0.1))
    assert verdict.robust.all()
    forwards, backwards = attack.cost(classes, norm)
    assert set(verdict.forwards.tolist()) == {forwards - 1}  # what it returns at last is the judge's to ask
    assert set(verdict.backwards.tolist()) == {backwards}
