"""Best in L0: what can fall does, by gradients or by scores; each start counts, and what is far from falling ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.attacks import _best_l0, _exchange
from robustbench_local.attacks._best_l0 import PixelExchange
from robustbench_local.attacks._exchange import proposed
from robustbench_local.attacks.best import Best
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from tests.helpers.fewest_pixels import halves
from tests.helpers.score_based import Stubborn, company_changes_nothing, watched_inside


class NoSlope(nn.Module):
    """Of halves(): the scores show which pixels count, the gradients nothing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.detach() + 0 * x.sum()


class NoScore(NoSlope):
    """Of halves(): the gradients show which pixels count, the scores only which class it is."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        lead = out[:, 0] - out[:, 1]
        lead = lead + (lead.sign() - lead).detach()
        return torch.stack([lead, 0 * lead], 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "led"), [(NoScore, 1e-9), (NoSlope, 1.0)])
def test_what_can_fall_falls_by_gradients_or_by_scores(
    kind: type[NoSlope], led: float, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twins: one step by gradients from each start, and no search by scores."""
    net, x, y, fewest = halves(channels)
    threat, falls = ThreatModel(Norm.L0, 3), fewest <= 3
    assert falls.sum() >= 10
    found = evaluate(kind(net), x, y, Best(steps=205), threat, precision="float64")
    assert threat.contains(found.x_adv, x).all() and found.robust[~falls].all()
    monkeypatch.setattr(_best_l0, "LED", led)
    without = evaluate(kind(net), x, y, Best(steps=205), threat, precision="float64")
    assert found.robust[falls].sum() <= 0.05 * falls.sum() < without.robust[falls].sum() - 2


@pytest.mark.slow
def test_what_scores_find_late_falls_soon_by_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of which version 5, sparse PGD and then Sparse-RS, left both. Here 32 steps of each start follow
    gradients, as in version 6, twice as many as now; the twin's is one."""
    monkeypatch.setattr(_best_l0, "LED", 0.05)
    model = load_model("zoo:mnist/none")
    x, y = (part[[114, 143]] for part in load_data("mnist", n=144, source="bundled"))
    ours = evaluate(model, x, y, Best(), "l0:5")
    monkeypatch.setattr(_best_l0, "LED", 1e-9)
    late = evaluate(model, x, y, Best(), "l0:5")
    assert not ours.robust.any() and ours.forwards.sum() < late.forwards.sum() / 3


class Block(nn.Module):
    """Class 1 where two by two pixels are white, anywhere; the scores count them, and the gradients say nothing."""

    def forward(self, x: Tensor) -> Tensor:
        white: Tensor = F.avg_pool2d(x, 2, stride=1).amax((1, 2, 3)).detach() + 0 * x.sum()
        return torch.stack([0.9 - white, white - 0.9], 1)


def test_new_pixels_are_next_to_those_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin's may be anywhere."""
    x, y = 0.01 * torch.rand(12, 1, 20, 20, generator=torch.Generator().manual_seed(3)), torch.zeros(12).long()
    found = evaluate(Block(), x, y, Best(steps=100, hopeless=math.inf), "l0:4")
    monkeypatch.setattr(_exchange, "NEAR", 0.0)
    anywhere = evaluate(Block(), x, y, Best(steps=100, hopeless=math.inf), "l0:4")
    assert found.robust.sum() <= 7 and anywhere.robust.sum() >= 11


@pytest.mark.slow
def test_exchanges_that_learn_find_more_than_pixels_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one start, where gradients are masked; the twin tries any pixel, as often as it comes."""
    model, one_start = load_model("zoo:mnist/adversarial_training"), PixelExchange(steps=6400, hopeless=1e-9)
    x, y = load_data("mnist", n=120, source="bundled")
    ours = evaluate(model, x, y, one_start, "l0:6")
    monkeypatch.setattr(_exchange, "NEAR", 0.0)
    monkeypatch.setattr(_exchange, "AGAIN", 1.0)
    anywhere = evaluate(model, x, y, one_start, "l0:6")
    assert ours.forwards.sum() < 0.9 * anywhere.forwards.sum()
    assert ours.robust.sum() < anywhere.robust.sum()


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        (Best(steps=40, hopeless=math.inf), (161, 10)),
        (Best(steps=400, effort=0.5, hopeless=math.inf), (801, 20)),
        (Best(steps=1, hopeless=math.inf), (5, 4)),
    ],
)
def test_the_cost_is_as_predicted(attack: Best, most: tuple[int, int]) -> None:
    x, y = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(3, dtype=torch.int64)
    verdict = evaluate(Stubborn(), x, y, attack, "l0:2")
    assert verdict.robust.all() and attack.cost(3, Norm.L0) == most
    assert verdict.forwards.tolist() == [most[0]] * 3 and verdict.backwards.tolist() == [most[1]] * 3


class Dims(nn.Module):
    """Class 0 leads by how bright the image is."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1).mean(1)
        return torch.stack([lead, 0 * lead, -lead], 1)


@pytest.mark.parametrize(("hopeless", "turns"), [(0.3, 1), (0.49, 1), (0.51, 2), (0.72, 3), (1.57, 10), (math.inf, 10)])
def test_what_keeps_too_much_of_its_margin_is_given_up_after_a_start(hopeless: float, turns: int) -> None:
    """Half of the pixels may turn black, so that half is left: s starts bear hopeless / sqrt(s)."""
    attack = Best(steps=40, hopeless=hopeless)
    verdict = evaluate(Dims(), torch.ones(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), attack, "l0:8")
    assert verdict.robust.all() and verdict.forwards.tolist() == [16 * turns + 1] * 2
    assert ThreatModel.parse("l0:8").distance(verdict.x_adv, torch.ones(2, 1, 4, 4)).eq(8).all()  # the best point


class OneStart(PixelExchange):
    def _fresh(self, state: State, *rest: object) -> State:
        return {} if state["chosen"].any() else super()._fresh(state, *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "anew"), [(PixelExchange, True), (OneStart, False)])
def test_each_start_is_at_pixels_of_its_own(
    kind: type[PixelExchange], anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Tensor] = []
    ask = Oracle.grad

    def watched(self: Oracle, x_adv: Tensor, *rest: object) -> object:
        begun.append((x_adv != self._x).any(1).flatten(1))
        return ask(self, x_adv, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Oracle, "grad", watched)
    evaluate(Dims(), torch.ones(9, 1, 20, 20), torch.zeros(9, dtype=torch.int64), kind(steps=100), "l0:3")
    assert len(begun) == 10 and all((each.sum(1) == 3).all() for each in begun)
    assert torch.stack(begun).sum(0).amax(1).double().mean() < 1.5 if anew else torch.equal(begun[0], begun[9])


def test_of_many_pixels_a_tenth_are_exchanged_at_first_and_one_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []

    def watched(state: State, x: Tensor, draws: Draws, size: int, count: int) -> State:
        at_once.append(count)
        assert size == 40
        return proposed(state, x, draws, size, count)

    monkeypatch.setattr(_best_l0, "proposed", watched)
    x, y = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.int64)
    evaluate(Stubborn(), x, y, PixelExchange(steps=100), "l0:40")
    assert at_once == [3, 3, 2, 2, 2, 1, 1, 1, 1] * 10


@pytest.mark.parametrize("kind", ["deterministic", "random"])
def test_company_changes_nothing(kind: str) -> None:
    company_changes_nothing(Best(steps=9), ThreatModel.parse("l0:3"), kind)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 12, 60])
def test_it_never_leaves_ball_and_box(count: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where more pixels may change than there are."""
    ball = ThreatModel(Norm.L0, count)
    x = (3 * torch.rand(12, channels, 7, 6, generator=torch.Generator().manual_seed(7)) - 1).clamp(0, 1)
    assert (x == 0).any() and (x == 1).any()
    asked = watched_inside(ball, monkeypatch)
    evaluate(Stubborn(), x, torch.zeros(12, dtype=torch.int64), PixelExchange(steps=160), ball)
    assert asked == ["logits"] + (["grad"] + ["logits"] * 15) * 10
