"""What logits are multiplied by changes no distance, and nothing at all where an attack sees no loss but the margin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.config.plugins import find_attack
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from tests.helpers.small_networks import images, network

DISTANCE = 0.188
SCALES = (1e-6, 1e-3, 1e6)
NEAREST: list[tuple[str, dict[str, Any], str, float]] = [  # attack, settings, ball, how many times the true distance
    ("deepfool", {}, "l2:0.5", 1.03),
    ("deepfool", {}, "linf:0.3", 1.03),
    ("ddn", {}, "l2:0.5", 1.03),
    ("fmn", {}, "l2:0.5", 1.02),
    ("fmn", {}, "linf:0.3", 1.03),
    ("fmn", {}, "l1:4", 1.05),
    ("pdpgd", {"polish": 0.4}, "l1:4", 1.05),
    ("fab", {}, "l2:0.5", 1.01),
    ("fab", {}, "linf:0.3", 1.01),
    ("fab", {}, "l1:4", 1.01),
    ("cw", {"steps": 60, "searches": 8, "step_size": 0.03}, "l2:0.5", 1.03),
    ("ead", {"steps": 100, "searches": 7, "rule": "l1", "beta": 0.01}, "l1:4", 1.15),
    ("boundary", {"steps": 250}, "l2:0.9", 5),
    ("hopskipjump", {"steps": 10}, "l2:0.5", 1.1),
]
LABELS: list[tuple[str, dict[str, Any], str]] = [
    ("boundary", {"steps": 30}, "l2:0.2"),
    ("hopskipjump", {"steps": 3}, "l2:0.2"),
    ("hopskipjump", {"steps": 3}, "linf:0.03"),
    ("adba", {"steps": 20}, "linf:0.03"),
    ("spatial", {"search": "random"}, "none"),
]
MARGINS: list[tuple[str, dict[str, Any], str]] = [
    ("pgd", {"loss": "margin", "steps": 5}, "linf:0.02"),
    ("apgd", {"loss": "dlr", "steps": 10}, "l2:0.1"),
    ("apgd", {"loss": "dlr", "targets": 3, "steps": 10}, "linf:0.02"),
    ("fab", {"steps": 10}, "l2:0.2"),
    ("fmn", {"steps": 10}, "linf:0.02"),
    ("deepfool", {"steps": 5}, "l2:0.2"),
    ("jsma", {}, "l0:3"),
    ("sigma_zero", {"steps": 20}, "l0:3"),
    ("pdpgd", {"steps": 20}, "l1:1"),
    ("square", {"steps": 60}, "linf:0.02"),
    ("sparse_rs", {"steps": 60}, "l0:2"),
    ("best", {"steps": 60, "climb": 3}, "linf:0.02"),
    ("nes", {"steps": 5, "samples": 10}, "linf:0.02"),
    ("spsa", {"steps": 5, "samples": 10}, "linf:0.02"),
]


class Times(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.net(x)
        return logits


def half_spaces(ball: ThreatModel) -> tuple[nn.Module, Tensor, Tensor]:
    """Two classes, four images in the middle of the box, each at DISTANCE from the plane (L∞: a tenth of it)."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(2, 36, generator=generator)
    weight[1, 7] = weight[0, 7] + 4  # one pixel matters most, so that L1 is decided by it
    normal = weight[1] - weight[0]
    layer = nn.Linear(36, 2)
    layer.weight.data, layer.bias.data = weight, -0.5 * weight.sum(1)
    dual = normal.norm(p={"l2": 2.0, "linf": 1.0, "l1": torch.inf}[ball.norm])
    x = 0.5 + 0.01 * torch.randn(4, 36, generator=generator)
    missing = distance_in(ball) * dual - (x - 0.5) @ normal
    x = (x + missing[:, None] * normal / normal.dot(normal)).view(4, 1, 6, 6)
    return nn.Sequential(nn.Flatten(), layer).eval(), x, torch.ones(4, dtype=torch.int64)


def distance_in(ball: ThreatModel) -> float:
    return DISTANCE / 10 if ball.norm == "linf" else DISTANCE


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "settings", "ball", "within"), NEAREST)
def test_the_distance_to_a_plane_is_the_same_at_every_scale(
    name: str, settings: dict[str, Any], ball: str, within: float, scale: float
) -> None:
    threat = ThreatModel.parse(ball)
    model, x, y = half_spaces(threat)
    verdict = rbl.evaluate(Times(model, scale), x, y, find_attack(name, settings), threat)
    assert not verdict.robust.any()
    assert (verdict.distance <= within * distance_in(threat) + 1e-3).all(), verdict.distance
    assert (verdict.distance >= 0.999 * distance_in(threat)).all(), verdict.distance


def judged(attack: Attack, ball: str, factor: float, **settings: Any) -> Any:
    net = network()
    data = images(net)
    return Judge(seed=2, **settings)(Times(net, factor), data, attack, ThreatModel.parse(ball))


@pytest.mark.parametrize("power", [-30, -3, 7])
@pytest.mark.parametrize(("name", "settings", "ball"), LABELS)
def test_labels_know_no_scale(name: str, settings: dict[str, Any], ball: str, power: int) -> None:
    attack = find_attack(name, settings)
    usual, other = judged(attack, ball, 1.0), judged(attack, ball, 2.0**power)
    for field in ("clean", "robust", "x_adv", "forwards"):
        assert torch.equal(getattr(usual, field), getattr(other, field)), field
    assert 0 < usual.robust.sum() < usual.clean.sum()


@pytest.mark.parametrize("power", [-20, -10, 10])
@pytest.mark.parametrize(("name", "settings", "ball"), MARGINS)
def test_margins_know_no_scale(name: str, settings: dict[str, Any], ball: str, power: int) -> None:
    attack = find_attack(name, settings)
    usual, other = judged(attack, ball, 1.0), judged(attack, ball, 2.0**power)
    for field in ("clean", "robust", "x_adv", "forwards", "backwards"):
        assert torch.equal(getattr(usual, field), getattr(other, field)), field
    assert (usual.x_adv != images(network()).x).any()


def test_a_substitute_learns_the_same_from_labels() -> None:
    net, generator = network(), torch.Generator().manual_seed(9)
    own = Tensors(torch.rand(8, 3, 8, 8, generator=generator), torch.zeros(8, dtype=torch.int64), torch.arange(90, 98))
    attack = find_attack("substitute", {"seeds": 8, "rounds": 2, "epochs": 1})
    usual, other = (
        Judge()(Times(net, factor), images(net), attack, ThreatModel.parse("linf:0.05"), attacker=own)
        for factor in (1.0, 2.0**-12)
    )
    assert torch.equal(usual.x_adv, other.x_adv) and torch.equal(usual.robust, other.robust)


def test_a_near_tie_is_one_at_every_scale() -> None:
    """At 1e-6 of the logits' size nobody is sure, at 1e-2 everybody."""
    x, y = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)

    class Leads(nn.Module):
        def __init__(self, share: float, scale: float) -> None:
            super().__init__()
            self.logits = scale * torch.tensor([8.0, 8 * (1 + share), -3.0])

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.expand(len(x), 3) + 0 * x.flatten(1).sum(1, keepdim=True)

    for access in (Access.LABELS, Access.SCORES):
        for scale in (1e-6, 1e-3, 1.0, 1e4, 1e8):
            for share, clear in ((2e-7, False), (1e-2, True)):
                draws = Draws(0, torch.arange(1))
                oracle = Oracle(Leads(share, scale), x, y, ThreatModel.parse("linf:0.1"), access, draws)
                oracle.labels(x)
                assert oracle.broken.item() is oracle.succeeded.item() is clear and oracle.remembered.item(), (
                    scale,
                    share,
                )


def test_the_unit_of_logits_is_one_for_usual_ones_and_exact() -> None:
    sizes = torch.tensor([0.0, 0.5, 10.0, 300.0, 10 * 2.0**-10, 10 * 2.0**20])
    assert losses.unit(sizes).tolist() == [1, 1, 1, 1, 2.0**-10, 2.0**20]
    logits = torch.tensor([[3.0, -torch.inf, 1.0], [torch.nan, 1.0, 2.0], [2.0, -9.0, 1.0]])
    assert losses.size(logits, torch.tensor([0, 1, 1])).tolist() == [3, 0, 9]
