"""Best: what must be broken is, it costs what it says, and it leaves little that AutoAttack breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import best
from robustbench_local.attacks._edge import Edge
from robustbench_local.attacks.autoattack import AutoAttack
from robustbench_local.attacks.best import NEAR, TRIED, WALKS, Best
from robustbench_local.attacks.square import Square
from robustbench_local.core import losses
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.losses import margin
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.linear import THREATS, two_classes
from tests.helpers.score_based import Stubborn, company_changes_nothing, watched_inside
from tests.helpers.small_networks import images, network


@dataclass(frozen=True)
class NoStep(Best):
    def step(self, state: State, oracle: Oracle, x: Tensor, *rest: object) -> State:
        return super().step(state, oracle, x, *rest) | {"x_adv": x, "best": x}  # type: ignore[arg-type]


@dataclass(frozen=True)
class WrongSign(Best):
    def _ascend(self, state: State, oracle: Oracle, x: Tensor, *rest: object) -> State:
        moved = super()._ascend(state, oracle, x, *rest)  # type: ignore[arg-type]
        return moved | {"x_adv": 2 * state["x_adv"] - moved["x_adv"]}


@dataclass(frozen=True)
class TooFar(Best):
    def step(self, state: State, oracle: Oracle, x: Tensor, *rest: object) -> State:
        state = super().step(state, oracle, x, *rest)  # type: ignore[arg-type]
        return state | {"x_adv": x + 1.01 * (state["x_adv"] - x)}


REACH = {Norm.LINF: 1.0, Norm.L2: 0.99, Norm.L1: 0.8}  # outside of L∞ the edge is met only in the limit


def fells_the_near(attack: Attack, threat: ThreatModel) -> bool:
    model, x, y, distance = two_classes(threat)
    verdict = evaluate(model, x, y, attack, threat)
    within = bool(threat.contains(verdict.x_adv, x).all())
    near = distance < REACH[threat.norm] * threat.eps
    return within and bool(verdict.robust[distance > threat.eps].all()) and not verdict.robust[near].any()


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_near_points_are_broken_and_no_others(threat: ThreatModel) -> None:
    assert fells_the_near(Best(steps=150), threat)


@pytest.mark.parametrize("broken", [NoStep, WrongSign, TooFar])
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_broken_twins_are_caught(threat: ThreatModel, broken: type[Best]) -> None:
    assert not fells_the_near(broken(steps=60), threat)


@pytest.mark.parametrize("kind", ["deterministic", "random"])
@pytest.mark.parametrize("threat", ["linf:0.03", "l2:0.2", "l1:1.5"])
def test_company_changes_nothing(threat: str, kind: str) -> None:
    company_changes_nothing(Best(steps=9, climb=2), ThreatModel.parse(threat), kind)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threat", ["linf:0", "linf:0.3", "l2:0", "l2:0.5", "l2:3", "l1:0.5", "l1:12"])
def test_it_never_leaves_ball_and_box(threat: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ball = ThreatModel.parse(threat)
    x = (3 * torch.rand(12, channels, 7, 6, generator=torch.Generator().manual_seed(7)) - 1).clamp(0, 1)
    assert (x == 0).any() and (x == 1).any()
    asked = watched_inside(ball, monkeypatch)
    verdict = evaluate(Stubborn(), x, torch.zeros(12, dtype=torch.int64), Best(steps=60, climb=5), ball)
    search = ["logits"] * 20
    assert verdict.flags == ("no_gradient:12",)  # how bright an image is moves no margin
    assert asked == ["logits"] + ["grad"] * 15 + search + ["grad"] * 5 + search


@pytest.mark.parametrize("attack", [Best(effort=0.05, climb=7), Best(steps=1), Best(steps=10, effort=2.0)])
@pytest.mark.parametrize("threat", ["linf:0.1", "l2:1", "l1:4"])
def test_the_cost_is_as_predicted(attack: Best, threat: str) -> None:
    x, y = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(3, dtype=torch.int64)
    verdict = evaluate(Stubborn(), x, y, attack, threat)
    forwards, backwards = attack.cost(3, ThreatModel.parse(threat).norm)
    assert verdict.robust.all()
    assert verdict.forwards.tolist() == [forwards] * 3 and verdict.backwards.tolist() == [backwards] * 3


@dataclass(frozen=True)
class Stays(Attack):
    def __call__(self, oracle: Oracle, x: Tensor, *rest: object) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("threat", "rows", "walks"),
    [
        ("l2:1.5", range(6), ()),
        ("l1:7", (0, 3, 4, 5, 6), ()),
        ("l1:7", (39, 81, 127), WALKS[Norm.L1][1:]),
        ("l1:7", (3, 10), WALKS[Norm.L1][:1]),
    ],
)
def test_outside_the_ball_it_finds_what_is_masked_inside(
    threat: str, rows: Sequence[int], walks: tuple[Edge, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net trained for L∞. The twins stay in the ball, or in L1 walk with FAB or with PDPGD alone."""
    model, norm = load_model("zoo:mnist/adversarial_training"), ThreatModel.parse(threat).norm
    x, y = (part[list(rows)] for part in load_data("mnist", n=max(rows) + 1, source="bundled"))
    whole = evaluate(model, x, y, Best(effort=0.35), threat)
    monkeypatch.setattr(best, "WALKS", {norm: walks})
    assert whole.robust.sum() < evaluate(model, x, y, Best(effort=0.35), threat).robust.sum() - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "threat", "rows", "twin"),
    [
        ("mnist/adversarial_training", "l1:7", [11, 13, 75], "handed"),
        ("mnist/thermometer", "l1:10", [54, 130, 222], "moved"),
    ],
)
def test_in_l1_either_kind_of_proposals_finds_what_the_other_misses(
    model: str, threat: str, rows: list[int], twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = (part[rows] for part in load_data("mnist", n=max(rows) + 1, source="bundled"))
    judged = partial(evaluate, load_model(f"zoo:{model}"), x, y, Best(), threat)
    whole = judged()
    monkeypatch.setattr(best, twin, lambda x_adv, *rest: x_adv)
    assert whole.robust.sum() == 0 and judged().robust.sum() == 3


def test_the_kind_of_proposals_that_gained_more_has_four_of_five() -> None:
    """Either in turn while both have gained the same."""
    gains = torch.tensor([[0.0, 0.0], [0.1, 0.2], [0.2, 0.1]])
    assert torch.stack([best._by_hand(gains, k) for k in range(10)]).sum(0).tolist() == [5, 8, 2]


class Wavers(nn.Module):
    """Class 0 leads by how bright the image is."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1).mean(1)
        return torch.stack([lead, 0 * lead, -lead], 1)


def walks(norm: Norm) -> tuple[int, int]:
    """Forwards and backwards of the walks outside, of three classes."""
    forwards, backwards = zip(*(walk.cost(3, norm) for walk in WALKS[norm]), strict=True)
    return sum(forwards), sum(backwards)


IN_L2, IN_L1 = walks(Norm.L2), walks(Norm.L1)
WHOLE = "nothing is given up"


@pytest.mark.parametrize(
    ("threat", "hopeless", "spent"),
    [
        ("l2:1.5", 0.9, (25 + IN_L2[0], 24 + IN_L2[1])),  # after six climbs: 0.9 * 12 / 24 is less than half
        ("l2:1.5", 1.1, (29 + IN_L2[0], 28 + IN_L2[1])),
        ("l2:1.5", math.inf, WHOLE),
        ("l1:4", 0.3, (25 + IN_L1[0], 24 + IN_L1[1])),  # after six climbs, though the walks came after one
        ("l1:4", 6, (50 + IN_L1[0], 28 + IN_L1[1])),  # 11 / 15 is left: 6 * 3 / 24 is more, 6 * 3 / 49 is not
        ("l1:4", math.inf, WHOLE),
        ("linf:0.3", 0.3, (25, 24)),  # half of the margin is left
        ("linf:0.3", 0.55, (29, 28)),  # 0.55 * 24 / 24 is more, 0.55 * 24 / 28 is not
        ("linf:0.3", 1.1, (56, 36)),  # 1.1 * 24 / 55 is less, after the first climb that interrupts the search
        ("linf:0.3", math.inf, WHOLE),
    ],
)
def test_what_keeps_too_much_of_its_margin_is_given_up(
    threat: str, hopeless: float, spent: tuple[int, int] | str
) -> None:
    attack = Best(steps=120, climb=4, hopeless=hopeless)  # 11 climbs; a fifth of the queries are 24
    x, y = torch.full((2, 1, 5, 5), 0.6), torch.zeros(2, dtype=torch.int64)  # half of it may go
    verdict = evaluate(Wavers(), x, y, attack, threat)
    assert verdict.robust.all()
    asked = (verdict.forwards[0].item(), verdict.backwards[0].item())
    assert asked == (attack.cost(3, ThreatModel.parse(threat).norm) if spent == WHOLE else spent)
    assert verdict.forwards[0] == verdict.forwards[1]
    darker = (x - verdict.x_adv).flatten(1).mean(1)  # 0.3 at most, which four steps of L2 do not quite reach
    most = {"l2": 0.28, "l1": 0.05, "li": 0.3 - 1e-6}[threat[:2]]
    assert (darker > most).all()  # the best point, given up or not


LEFT, BEFORE = [0.9, 0.5, 0.47, 0.5, 0.2, 0.16, 0.11], [0.9, 0.5, 0.47, 0.54, 0.2, 0.22, 0.11]


def looked_at(threat: str, hopeless: float, asked: int, came_on: int = 0) -> State:
    """What is known after a climb that brought the margin down from BEFORE to LEFT of the clean one."""
    state = {"margin": -5 * torch.tensor(LEFT), "seen": -5 * torch.tensor(BEFORE), "clean": -5 * torch.ones(7)}
    state |= {"abandoned": torch.zeros(7, dtype=torch.bool), "came_on": torch.full((7,), came_on)}
    return Best(hopeless=hopeless)._looked(state, ThreatModel.parse(threat), asked)


@pytest.mark.parametrize(
    ("threat", "hopeless", "asked", "gone"),
    [
        ("linf:0.3", 0.3, 125, [0, 0, 0, 0, 0, 0, 0]),
        ("linf:0.3", 0.3, 200, [1, 1, 0, 0, 0, 0, 0]),
        ("linf:0.3", 0.3, 800, [1, 1, 1, 1, 1, 0, 0]),
        ("l2:1", 0.3, 400, [1, 1, 1, 1, 1, 0, 0]),
    ],
)
def test_what_gives_way_is_asked_about_for_longer(threat: str, hopeless: float, asked: int, gone: list[int]) -> None:
    """The share of the clean margin that may be left: at last 0.3 * 320 / 800, 0.3 * 160 / 400."""
    looked = looked_at(threat, hopeless, asked)
    assert looked["abandoned"].int().tolist() == gone
    assert torch.equal(looked["seen"], -5 * torch.tensor(LEFT))


@pytest.mark.parametrize(
    ("hopeless", "came_on", "gone"),
    [
        (0.6, 0, [1, 1, 1, 0, 1, 0, 0]),  # 0.6 * 40 / 200 of the margin may be left, 0.6 * 320 / 200 of the two
        (0.3, 24, [1, 1, 1, 0, 1, 0, 1]),  # 0.3 * 40 / 200
        (0.3, 25, [1, 1, 0, 0, 0, 0, 0]),  # 0.3 * 320 / 200 of all: an eighth of 200
    ],
)
def test_in_l1_who_came_on_lately_is_asked_about_for_longer(hopeless: float, came_on: int, gone: list[int]) -> None:
    looked = looked_at("l1:10", hopeless, 200, came_on)
    assert looked["abandoned"].int().tolist() == gone
    assert looked["came_on"].tolist() == [came_on, came_on, came_on, 200, came_on, 200, came_on]


def test_what_the_walks_bring_is_no_progress_of_a_climb() -> None:
    """They come at the end of the first one."""
    assert looked_at("l1:10", 0.3, 25)["came_on"].tolist() == [0] * 7


def test_where_steps_mask_the_gradients_it_goes_on_in_l1() -> None:
    """These fall in the search that follows; after six climbs and the walks the smaller share would give them up."""
    x, y = (part[[54, 130, 222]] for part in load_data("mnist", n=223, source="bundled"))
    verdict = evaluate(load_model("zoo:mnist/thermometer"), x, y, Best(effort=0.35), "l1:10")
    assert verdict.robust.sum() == 0
    climbs_and_walks = Best(effort=0.35).cost(10, Norm.L1)[1] - 2 * 25  # but for the two climbs that interrupt it
    assert (verdict.backwards >= climbs_and_walks).all()


@dataclass(frozen=True)
class Watched(Best):
    """Notes of every climb before the search whether it begins at the best point."""

    begun: ClassVar[list[bool]] = []

    def _ascend(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, *rest: Any) -> State:
        if rest[0] in (1, NEAR):  # of eps: a climb's first step
            self.begun.append(rest[0] == NEAR and torch.equal(state["x_adv"], state["best"]))
        return super()._ascend(state, oracle, x, y, threat, *rest)


@pytest.mark.parametrize(
    ("threat", "climbs", "from_best"),
    [
        ("l2:0.01", 13, [5, 11, 13, 14, 15, 16, 17, 18]),  # those that interrupt the search do too
        ("l1:0.01", 6, [2, 7, 9, 11]),  # every second of those
        ("linf:0.001", 13, [13, 14, 15, 16, 17, 18]),
    ],
)
def test_in_l2_and_l1_some_climbs_begin_at_the_best_point(threat: str, climbs: int, from_best: list[int]) -> None:
    attack = Watched(steps=200, climb=4, hopeless=math.inf)
    assert attack._climbs(ThreatModel.parse(threat).norm) == (climbs, 6)
    Watched.begun.clear()
    evaluate(Wavers(), torch.full((1, 1, 5, 5), 0.6), torch.zeros(1, dtype=torch.int64), attack, threat)
    assert [place for place, best in enumerate(Watched.begun) if best] == from_best


def test_it_costs_a_tenth_of_autoattack_where_two_fifths_are_not_given_up() -> None:
    forwards, backwards = AutoAttack().cost(10)
    (most, climbed), least = Best().cost(10), TRIED * Best().climb
    assert 0.4 * most + 0.6 * least <= forwards / 10 and 0.4 * climbed + 0.6 * least <= backwards / 5


@dataclass(frozen=True)
class MarginAlone(Best):
    def _loss(self, oracle: Oracle, state: State, threat: ThreatModel, restart: int) -> losses.Loss:
        return losses.named("margin", targeted=oracle.targeted)


def climbs_that_follow_all_classes(
    kind: type[Best], threat: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> set[int]:
    """Which climbs from the edge raise a loss with a slope in all logits, where these are of that size."""
    net, chosen = network(), kind._loss
    followed: set[int] = set()
    data = images(net)
    logits = size * torch.tensor([[1.0, 0.7, 0.3, -1.0]])

    def watched(self: Best, oracle: Oracle, state: State, threat: ThreatModel, restart: int) -> losses.Loss:
        loss = chosen(self, oracle, state | {"target": torch.tensor([1])}, threat, restart)
        (slope,) = torch.autograd.grad(loss(given := logits.clone().requires_grad_(), torch.tensor([0])).sum(), given)
        if (slope != 0).all():
            followed.add(restart)
        return chosen(self, oracle, state, threat, restart)

    monkeypatch.setattr(kind, "_loss", watched)
    evaluate(net, data.x, data.labels, kind(steps=120, climb=4, hopeless=math.inf), threat)  # 8 climbs from the edge
    monkeypatch.undo()
    return followed


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_in_linf_the_third_of_every_four_climbs_follows_all_classes(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert climbs_that_follow_all_classes(Best, "linf:0.01", size, monkeypatch) == {2, 6}
    assert climbs_that_follow_all_classes(Best, "l2:0.01", size, monkeypatch) == set()
    assert climbs_that_follow_all_classes(MarginAlone, "linf:0.01", size, monkeypatch) == set()


def test_every_second_climb_goes_for_one_class_in_the_order_of_how_near_each_came() -> None:
    net = network()
    data = images(net)
    aims: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched(Best):
        def step(self, state: State, *rest: object) -> State:
            state = super().step(state, *rest)  # type: ignore[arg-type]
            aims.append(state["target"])
            return state

    climb = 2
    evaluate(
        net, data.x, data.labels, Watched(steps=62, climb=climb, hopeless=math.inf), "linf:1e-5"
    )  # 8 climbs, nothing is broken
    targets = [aims[place * climb] for place in (1, 3, 5, 7)]
    with torch.no_grad():
        right = data.labels == net(data.x).argmax(1)
        order = net(data.x)[right].scatter(1, data.labels[right][:, None], -torch.inf).argsort(1, descending=True)
    assert torch.equal(torch.stack(targets[:3], 1), order[:, :3])  # three other classes
    assert torch.equal(targets[3], targets[0])


def test_what_comes_back_is_the_best_point_met() -> None:
    threat = THREATS[0]
    model, x, y, distance = two_classes(threat)
    far = distance > threat.eps
    margins: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched(Best):
        def step(self, state: State, *rest: object) -> State:
            state = super().step(state, *rest)  # type: ignore[arg-type]
            margins.append(state["margin"])
            return state

    verdict = evaluate(model, x[far], y[far], Watched(steps=40, climb=5), threat)
    assert verdict.robust.all()
    assert all((after >= before).all() for before, after in pairwise(margins))
    with torch.no_grad():
        assert torch.allclose(margin(model(verdict.x_adv), y[far]), margins[-1], atol=1e-4)


@pytest.mark.parametrize("threat", ["linf:0.1", "l0:8"])
def test_it_reaches_for_a_given_class(threat: str) -> None:
    model = network()
    data = images(model)
    given = (data.labels + 2) % 4
    verdict = Judge(targets=given)(model, data, Best(steps=100), ThreatModel.parse(threat))
    broken = verdict.clean & ~verdict.robust
    with torch.no_grad():
        assert broken.sum() > 3
        assert torch.equal(broken, verdict.clean & (model(verdict.x_adv).argmax(1) == given))


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"climb": 0},
        {"effort": 0.0},
        {"effort": 1e9},
        {"effort": float("nan")},
        {"p": 0.0},
        {"hopeless": 0.0},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Best(**settings)  # type: ignore[arg-type]


def test_more_effort_is_more_queries_of_the_same_kind() -> None:
    net = network()
    data = images(net)
    twice = evaluate(net, data.x, data.labels, Best(steps=20, climb=5, effort=2.0), "linf:0.02")
    same = evaluate(net, data.x, data.labels, replace(Best(steps=20, climb=5), steps=40), "linf:0.02")
    assert torch.equal(twice.robust, same.robust) and torch.equal(twice.forwards, same.forwards)


@pytest.mark.parametrize(
    ("data", "count", "threat"),
    [
        pytest.param("mnist", 60, "linf:0.3", marks=pytest.mark.slow),
        pytest.param("mnist", 30, "l2:1.5", marks=pytest.mark.slow),
        pytest.param("mnist", 30, "l1:10", marks=pytest.mark.slow),
        pytest.param("cifar10", 40, "linf:8/255", marks=pytest.mark.slow),
    ],
)
def test_it_leaves_little_that_autoattack_fells(
    data: str, count: int, threat: str, record_property: Callable[[str, object], None]
) -> None:
    model = load_model(f"zoo:{data}/adversarial_training")
    x, y = load_data(data, n=count, source="bundled")
    ours = evaluate(model, x, y, Best(), threat)
    theirs = evaluate(model, x, y, AutoAttack(), threat)
    record_property("robust after best, after autoattack", (ours.robust_accuracy, theirs.robust_accuracy))
    assert ours.robust_accuracy <= theirs.robust_accuracy + 1 / count


@pytest.mark.slow
def test_it_leaves_no_more_than_square_does_at_the_same_cost() -> None:
    model = load_model("zoo:mnist/adversarial_training")
    x, y = load_data("mnist", n=40, source="bundled")
    ours = evaluate(model, x, y, Best(effort=0.05), "linf:0.3")
    square = evaluate(model, x, y, Square(steps=80), "linf:0.3")
    assert ours.robust_accuracy <= square.robust_accuracy
