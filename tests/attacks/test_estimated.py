"""Attacks that estimate the gradient from scores: the estimate itself, what it finds, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import _estimated
from robustbench_local.attacks._estimated import slope
from robustbench_local.attacks.nes import NES
from robustbench_local.attacks.spsa import SPSA
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.linear import linear, two_classes

LINF, L2 = ThreatModel.parse("linf:0.1"), ThreatModel.parse("l2:0.2")
CASES: list[tuple[Attack, ThreatModel]] = [
    (SPSA(steps=25, samples=64, learning_rate=0.02), LINF),
    (NES(steps=25), LINF),
    (NES(steps=25, samples=80), L2),
]


class NoGradients(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not x.requires_grad
        logits: Tensor = self.net(x)
        return logits


def network(channels: int = 3) -> nn.Sequential:
    """A small random network, 4 classes, images of 8x8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()


def images(model: nn.Module, dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensors:
    x = torch.rand(12, channels, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    with torch.no_grad():
        return Tensors(x, model.to(dtype)(x).argmax(1), torch.arange(100, 112))


def oracle(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Oracle:
    return Oracle(model, x, y, LINF, Access.SCORES, Draws(0, torch.arange(len(x))), **settings)


def test_in_one_dimension_the_slope_is_the_derivative() -> None:
    model = linear(torch.tensor([[1.0], [3.5]]), torch.zeros(2))
    x, y = torch.full((3, 1, 1, 1), 0.4), torch.zeros(3, dtype=torch.int64)
    asked = oracle(model, x, y)
    signs = Draws(1, torch.arange(3))
    found = slope(asked, x, y, losses.margin, lambda k: 2.0 * signs.integers(2, k, 1, 1, 1) - 1, 30, 0.01)
    assert torch.allclose(found, torch.tensor(2.5), atol=1e-4) and asked.forwards.eq(60).all()


@pytest.mark.parametrize("kind", ["signs", "gaussians"])
def test_the_slope_turns_to_the_gradient_as_directions_grow(kind: str) -> None:
    model = network().double()
    data = images(model, torch.float64)

    def alignment(count: int) -> float:
        draws = Draws(1, data.ids, dtype=torch.float64)

        def directions(k: int) -> Tensor:
            return 2.0 * draws.integers(2, k, 3, 8, 8) - 1 if kind == "signs" else draws.normal(k, 3, 8, 8)

        found = slope(oracle(model, data.x, data.labels), data.x, data.labels, losses.ce, directions, count, 1e-4)
        leaf = data.x.clone().requires_grad_()
        (true,) = torch.autograd.grad(losses.ce(model(leaf), data.labels).sum(), leaf)
        assert 0.5 < (found.flatten(1) * true.flatten(1)).sum(1).mean() / true.square().flatten(1).sum(1).mean() < 1.5
        return torch.nn.functional.cosine_similarity(found.flatten(1), true.flatten(1)).mean().item()

    assert alignment(2000) > 0.93 > alignment(200) > 0.5


def test_where_frozen_the_slope_is_zero() -> None:
    model = network()
    data = images(model)
    draws = Draws(1, data.ids)
    asked = oracle(model, data.x, data.labels, budget=3)
    found = slope(asked, data.x, data.labels, losses.ce, lambda k: draws.normal(k, 3, 8, 8), 2, 0.01)
    assert not found.any() and not asked.forwards.any()


def nearly_all_near_are_broken(attack: Attack, threat: ThreatModel) -> bool:
    model, x, y, distance = two_classes(threat)
    verdict = evaluate(NoGradients(model), x[::2], y[::2], attack, threat)
    assert verdict.clean.all() and verdict.backwards.eq(0).all() and not verdict.flags
    assert verdict.robust[distance[::2] > threat.eps].all(), "broken beyond eps"
    return not verdict.robust[distance[::2] < 0.9 * threat.eps].any()


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_on_a_linear_model_what_is_near_falls(attack: Attack, threat: ThreatModel) -> None:
    assert nearly_all_near_are_broken(attack, threat)


@pytest.mark.parametrize("factor", [-1.0, 0.0])
@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_broken_twins_are_caught(
    attack: Attack, threat: ThreatModel, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong sign, and no slope at all."""

    def broken(*given: Any) -> Tensor:
        return factor * slope(*given)

    for module in ("spsa", "nes"):
        monkeypatch.setattr(f"robustbench_local.attacks.{module}.slope", broken)
    assert not nearly_all_near_are_broken(attack, threat)


def steps(count: int) -> dict[str, Any]:
    """A setting of both."""
    return {"steps": count}


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_in_float64_batch_and_order_change_nothing(attack: Attack, threat: ThreatModel) -> None:
    model = network()
    data = images(model, torch.float64)
    small, attack = ThreatModel(threat.norm, threat.eps / 4), replace(attack, **steps(5))

    def verdict(rows: Tensor, batch: int) -> Verdict:
        part = Tensors(data.x[rows], data.labels[rows], data.ids[rows])
        return Judge(seed=3, precision="float64", batch_size=batch)(model, part, attack, small)

    before = data.x.clone()
    whole = verdict(torch.arange(12), 12)
    assert torch.equal(data.x, before) and whole.distance.gt(0).all() and whole.robust.any()
    for rows, batch in ((torch.arange(12), 1), (torch.tensor([6, 11, 3, 7, 0]), 3)):
        part = verdict(rows, batch)
        assert torch.equal(part.forwards, whole.forwards[rows]) and torch.equal(part.robust, whole.robust[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
def test_never_outside_ball_and_box(attack: Attack, threat: ThreatModel, eps: float, channels: int) -> None:
    model, ball = network(channels), ThreatModel(threat.norm, eps)
    x = images(model, channels=channels).x.round()  # black and white touch both sides of the box
    with torch.no_grad():
        y = model(x).argmax(1)
    verdict = evaluate(model, x, y, replace(attack, **steps(4)), ball)
    assert ball.contains(verdict.x_adv, x).all() and verdict.clean.all() and not verdict.flags
    assert torch.equal(verdict.x_adv, x) if eps == 0 else verdict.distance.max() > 0


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_what_never_falls_costs_what_is_said(attack: Attack, threat: ThreatModel) -> None:
    model = linear(torch.linspace(-0.02, 0.02, 32).view(2, 16), torch.tensor([5.0, 0.0]))
    verdict = evaluate(model, torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), attack, threat)
    assert verdict.robust.all()
    assert (int(verdict.forwards.max()), 0) == (int(verdict.forwards.min()), 0) == attack.cost(2)


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_targets_are_reached(attack: Attack, threat: ThreatModel) -> None:
    model = network()
    data = images(model)
    goal = (data.labels + 1) % 4
    wide = ThreatModel(threat.norm, 5 * threat.eps if threat.norm is Norm.L2 else 0.3)
    verdict = evaluate(model, data.x, data.labels, attack, wide, targets=goal)
    with torch.no_grad():
        assert torch.equal(model(verdict.x_adv).argmax(1) == goal, ~verdict.robust)
    assert verdict.robust_accuracy < 0.5


def test_chunks_of_directions_are_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    data = images(model, torch.float64)
    first = Judge(precision="float64")(model, data, NES(steps=3), LINF)
    monkeypatch.setattr(_estimated, "CHUNK", 7)
    assert torch.allclose(first.x_adv, Judge(precision="float64")(model, data, NES(steps=3), LINF).x_adv, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SPSA(steps=0),
        lambda: SPSA(samples=3),
        lambda: SPSA(delta=0.0),
        lambda: SPSA(learning_rate=-1.0),
        lambda: SPSA(loss="entropy"),
        lambda: NES(steps=0),
        lambda: NES(samples=1),
        lambda: NES(sigma=0.0),
        lambda: NES(momentum=1.0),
        lambda: NES(step_size="0"),
        lambda: NES(loss="entropy"),
    ],
)
def test_settings_are_checked(make: Callable[[], Attack]) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.slow
def test_spsa_leaves_no_more_robust_than_theirs(record_property: Callable[[str, object], None]) -> None:
    """On 100 images, the means of two seeds. Their samples are pairs: 32 of them are 64 of ours."""
    pytest.importorskip("torchattacks")
    model = load_model("zoo:mnist/none")
    x, y = load_data("mnist", n=100, source="bundled")
    ours, theirs = [], []
    for seed in (0, 1):
        mine = evaluate(model, x, y, "spsa", "linf:0.1", seed=seed, steps=10, samples=64, learning_rate=0.03)
        peer = evaluate(model, x, y, "torchattacks:SPSA", "linf:0.1", seed=seed, nb_iter=10, nb_sample=32, lr=0.03)
        assert mine.forwards.max() <= peer.forwards.max()
        ours.append(mine.robust_accuracy)
        theirs.append(peer.robust_accuracy)
    record_property("robust after ours, after theirs", (ours, theirs))
    assert sum(ours) / 2 < 0.9 and sum(ours) / 2 <= sum(theirs) / 2 + 0.005
