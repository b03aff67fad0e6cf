"""Square: the published schedule and shapes, what must be broken is, and beside AutoAttack's own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.square import Square, peaks
from robustbench_local.core import losses
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from tests.helpers.linear import distances, linear, two_classes
from tests.helpers.score_based import company_changes_nothing, costs_what_it_says, reaches_targets, stays_inside

THREATS = [ThreatModel.parse(text) for text in ("linf:0.1", "l2:0.5", "l1:2")]


@dataclass(frozen=True)
class NoStep(Square):
    def propose(self, state: State, *rest: object, **more: object) -> State:
        return state


@dataclass(frozen=True)
class WrongSign(Square):
    def _scored(self, state: State, oracle: Oracle, y: Tensor) -> State:
        state = super()._scored(state, oracle, y)
        return state | {"loss": -state["loss"]}


@dataclass(frozen=True)
class TooFar(Square):
    def propose(self, state: State, x: Tensor, threat: ThreatModel, *rest: object, **more: object) -> State:
        wide = ThreatModel(threat.norm, 1.1 * threat.eps)
        return super().propose(state, x, wide, *rest, **more)  # type: ignore[arg-type]


BROKEN = (NoStep, WrongSign, TooFar)


def waves(threat: ThreatModel) -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """(model, x, y, distance): class 1 looks for a smooth pattern, and x lie at 0.1 to 1.2 eps from it."""
    wave = torch.cos(2 * torch.pi * (torch.arange(12) + 0.5) / 12)
    weight = torch.outer(wave, wave).flatten()
    model = linear(torch.stack([-weight, weight]), torch.zeros(2))
    x = 0.5 + 0.02 * torch.randn(45, 144, generator=torch.Generator().manual_seed(0))
    dual = weight.norm(p=2 if threat.norm is Norm.L2 else torch.inf)
    missing = -torch.linspace(0.1, 1.2, 45) * threat.eps * dual - x @ weight
    x = (x + missing[:, None] * weight / weight.dot(weight)).view(-1, 1, 12, 12)
    y = torch.zeros(45, dtype=torch.int64)
    return model, x, y, distances(model, x, y, threat.norm)


def fells_the_near(attack: Square, threat: ThreatModel) -> bool:
    """L∞: exactly the near. The peaks of L2 and L1 approach the best direction only slowly."""
    if threat.norm is Norm.LINF:
        (model, x, y, distance), reach = two_classes(threat), 1.0
        model, x, y, distance = model, x[::4], y[::4], distance[::4]
    else:
        (model, x, y, distance), reach = waves(threat), 0.4
    verdict = evaluate(model, x, y, attack, threat)
    assert verdict.clean.all()
    within = bool(threat.contains(verdict.x_adv, x).all())
    return (
        within
        and bool(verdict.robust[distance > threat.eps].all())
        and not verdict.robust[distance < reach * threat.eps].any()
    )


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_near_points_are_broken_and_no_others(threat: ThreatModel) -> None:
    attack = Square(steps=1000 if threat.norm is Norm.LINF else 200)
    assert fells_the_near(attack, threat)
    for broken in BROKEN:
        twin = broken(steps=100)
        assert not fells_the_near(twin, threat), broken


@pytest.mark.parametrize("kind", ["deterministic", "random"])
@pytest.mark.parametrize("threat", ["linf:0.05", "l2:0.6", "l1:4"])
def test_company_changes_nothing(threat: str, kind: str) -> None:
    company_changes_nothing(Square(steps=6, restarts=2), ThreatModel.parse(threat), kind)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threat", ["linf:0", "linf:0.3", "l2:0", "l2:0.5", "l2:3", "l1:0.5", "l1:12"])
def test_it_stays_inside(threat: str, channels: int) -> None:
    stays_inside(Square(steps=40), ThreatModel.parse(threat), channels)
    if not threat.endswith(":0"):
        with pytest.raises(AssertionError):
            stays_inside(TooFar(steps=40), ThreatModel.parse(threat), channels)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_cost_and_access(threat: ThreatModel) -> None:
    costs_what_it_says(Square(steps=7, restarts=3), threat)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_targets(loss: str) -> None:
    reaches_targets(Square(steps=100, targeted_loss=loss), ThreatModel.parse("linf:0.1"))


def test_the_published_strength() -> None:
    attack = Square()
    assert (attack.steps, attack.p, attack.restarts, attack.loss, attack.targeted_loss) == (
        5000,
        0.8,
        1,
        "margin",
        "ce",
    )
    halved = {step: attack.share(step) for step in range(5000)}
    first = [step for step in range(1, 5000) if halved[step] != halved[step - 1]]
    assert first == [6, 26, 101, 251, 501, 1001, 2001, 3001, 4001]  # after 10, 50 ... 8000 of 10,000
    assert halved[0] == 0.8 and halved[4999] == 0.8 / 512
    assert replace(attack, steps=10_000).share(50) == 0.4 and replace(attack, steps=10_000).share(51) == 0.2


def test_peaks_by_hand() -> None:
    """A window of 3: one row above, two below; rings of 1 + 1/4 and 1/4, each half of the same length."""
    draws = Draws(0, torch.arange(40))
    found = peaks(3, Norm.L2, draws)
    above = torch.tensor([[0.25, 1.25, 0.25]])
    below = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    by_hand = torch.cat([above / above.norm(), -below / below.norm()]) / 2**0.5
    lying = (found - by_hand.T).abs().flatten(1).amax(1) < 1e-6
    assert ((found - by_hand).abs().flatten(1).amax(1) < 1e-6)[~lying].all() and 8 < lying.sum() < 32
    sharp = peaks(9, Norm.L1, draws)
    assert torch.allclose(sharp.abs().flatten(1).sum(1), torch.ones(40)) and sharp.sum((1, 2)).abs().max() < 1e-6


def test_no_query_is_wasted() -> None:
    """On the faces of the ball already: every proposal still changes its square."""
    x = torch.full((50, 1, 5, 5), 0.5)
    threat, draws = THREATS[0], Draws(0, torch.arange(50))
    attack = Square(steps=10)
    state = attack.start(x, threat, draws)
    for i in range(10):
        proposal = attack.propose(state, x, threat, draws, i, targeted=False)
        assert (proposal["x_adv"] != state["x_adv"]).flatten(1).any(1).all()
        state = proposal


@pytest.mark.parametrize("settings", [dict(steps=0), dict(restarts=0), dict(p=0), dict(p=1.1), dict(loss="hinge")])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Square(**settings)  # type: ignore[arg-type]


def theirs(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, steps: int, seed: int) -> float:
    module = pytest.importorskip("pyautoattack.square", reason="pyautoattack is not installed")
    norm = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}[threat.norm]
    with torch.random.fork_rng():
        attack = module.SquareAttack(model, norm=norm, n_queries=steps, eps=threat.eps, seed=seed, device="cpu")
        with torch.no_grad():
            robust = model(attack.perturb(x, y)).argmax(1) == y
    return float(robust.double().mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "threat", "seeds"),
    [
        ("mnist/adversarial_training", "linf:0.3", 3),
        ("mnist/none", "linf:0.1", 3),
        ("mnist/none", "l2:2", 5),
        ("mnist/none", "l1:10", 3),
    ],
)
def test_beside_autoattacks_own(
    name: str, threat: str, seeds: int, record_property: Callable[[str, object], None]
) -> None:
    """Means over seeds on 100 images with 500 queries; one seed moves by about a point and a half."""
    model, ball = load_model(f"zoo:{name}"), ThreatModel.parse(threat)
    x, y = load_data("mnist", n=100, source="bundled")
    mine = [evaluate(model, x, y, Square(steps=500), ball, seed=seed).robust_accuracy for seed in range(seeds)]
    peers = [theirs(model, x, y, ball, 500, seed) for seed in range(seeds)]
    record_property("robust after ours, after theirs", (mine, peers))
    assert statistics.mean(mine) < 1
    assert statistics.mean(mine) <= statistics.mean(peers) + 0.005


def test_the_loss_is_the_margin() -> None:
    """What is kept is what has the larger margin: the state's loss is its image's, and never shrinks."""
    model, x, y, _ = two_classes(THREATS[0])
    x, y = x[:20], y[:20]
    threat, draws = THREATS[0], Draws(0, torch.arange(20))
    oracle = Oracle(model, x, y, threat, Square.access, Draws(0, torch.arange(20)))
    attack = Square(steps=20)
    state = attack.init(oracle, x, y, threat, draws, 0)
    for i in range(20):
        before = state["loss"]
        state = attack.step(state, oracle, x, y, threat, draws.stream(i), i)
        with torch.no_grad():
            assert torch.allclose(state["loss"], losses.margin(model(state["x_adv"]), y), atol=1e-5)
        assert (state["loss"] >= before).all()
