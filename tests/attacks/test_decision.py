"""Attacks by labels alone: on linear models they come near the exact distance, and they never need more than labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks._decision import DecisionAttack, bisect, mosaic, nearest
from robustbench_local.attacks.adba import ADBA, halved, median
from robustbench_local.attacks.boundary import Boundary
from robustbench_local.attacks.hopskipjump import HopSkipJump
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.linear import distances, two_classes

L2, LINF = ThreatModel.parse("l2:0.2"), ThreatModel.parse("linf:0.1")
CLOSE = 1.1  # how far beyond the exact distance an attack may end, as a median
CASES: list[tuple[IterativeAttack, ThreatModel]] = [
    (HopSkipJump(steps=10), L2),
    (HopSkipJump(steps=15), LINF),
    (Boundary(steps=700), L2),
    (ADBA(steps=300), LINF),
]
WALKS: list[tuple[DecisionAttack, ThreatModel]] = [
    (HopSkipJump(steps=2, evaluations=30), L2),
    (HopSkipJump(steps=2, evaluations=30), LINF),
    (Boundary(steps=30), L2),
]
QUICK: list[tuple[IterativeAttack, ThreatModel]] = [*WALKS, (ADBA(steps=20), LINF)]


class Labels(nn.Module):
    """Says which class and nothing else, to no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        logits: Tensor = self.net(x)
        return 9.0 * nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(x)


def network(channels: int = 3) -> nn.Sequential:
    """A small random network, 4 classes, images of 8x8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()


def images(model: nn.Module, dtype: torch.dtype = torch.float32, count: int = 8, channels: int = 3) -> Tensors:
    x = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    with torch.no_grad():
        return Tensors(x, model.to(dtype)(x).argmax(1), torch.arange(100, 100 + count))


def comes_close(attack: IterativeAttack, threat: ThreatModel) -> bool:
    model, x, y, _ = two_classes(threat)
    x, y = x[::10], y[::10]
    verdict = evaluate(Labels(model), x, y, attack, threat)
    exact = distances(model, x, y, threat.norm)
    ratio = verdict.distance / exact
    assert verdict.clean.all() and verdict.backwards.eq(0).all()
    found = verdict.distance > 0
    assert (ratio[found] > 1 - 1e-4).all(), "nearer than the boundary"
    assert torch.equal(verdict.robust, ~found | (verdict.distance > threat.eps + 1e-6))
    return bool(found.all() and ratio.median() < CLOSE)


@pytest.mark.parametrize(("attack", "threat"), CASES, ids=str)
def test_on_a_linear_model_the_exact_distance_is_nearly_reached(attack: IterativeAttack, threat: ThreatModel) -> None:
    assert comes_close(attack, threat)


class NoStep:
    def step(self, state: State, *given: object) -> State:
        return state


class WrongSign:
    def _normal(self, *given: Any) -> Tensor:
        normal: Tensor = super()._normal(*given)  # type: ignore[misc]
        return -normal


class NoAdaptation:
    def _walk(self, state: State, *given: Any) -> State:
        moved: State = super()._walk(state, *given)  # type: ignore[misc]
        return moved | {"around": state["around"], "towards": state["towards"]}


class AnyRadius:
    def _successes(self, oracle: Oracle, x: Tensor, y: Tensor, pair: Tensor, radius: Tensor) -> Tensor:
        won: Tensor = super()._successes(oracle, x, y, pair, radius)  # type: ignore[misc]
        return won | (radius < 1)[:, None]


class OtherDirection:
    def _compared(self, state: State, pair: Tensor, *given: Any) -> State:
        compared: State = super()._compared(state, pair, *given)  # type: ignore[misc]
        first = (compared["signs"] == pair[:, 0]).flatten(1).all(1).view(-1, 1, 1, 1)
        return compared | {"signs": torch.where(first, pair[:, 1], pair[:, 0])}


class NoBoundary:
    def start(self, *given: Any) -> tuple[Tensor, Tensor]:
        first, found = super().start(*given)  # type: ignore[misc]
        return first, torch.zeros_like(found)


def twin(attack: IterativeAttack, broken: type) -> IterativeAttack:
    kind: Any = dataclass(frozen=True)(type("Twin", (broken, type(attack)), {}))
    made: IterativeAttack = kind(**asdict(attack))
    return made


@pytest.mark.parametrize(
    ("case", "broken"),
    [
        *[(0, NoStep), (1, NoStep), (2, NoStep), (0, WrongSign), (1, WrongSign), (2, NoAdaptation), (0, NoBoundary)],
        *[(3, NoStep), (3, AnyRadius), (3, OtherDirection)],
    ],
)
def test_broken_twins_are_caught(case: int, broken: type) -> None:
    attack, threat = CASES[case]
    assert not comes_close(twin(attack, broken), threat)


@pytest.mark.parametrize(("attack", "threat"), QUICK, ids=str)
def test_in_float64_batch_and_order_change_nothing(attack: IterativeAttack, threat: ThreatModel) -> None:
    model = network()
    data = images(model, torch.float64)

    def verdict(rows: Tensor, batch: int) -> Verdict:
        part = Tensors(data.x[rows], data.labels[rows], data.ids[rows])
        return Judge(seed=3, precision="float64", batch_size=batch)(model, part, attack, threat)

    before = data.x.clone()
    whole = verdict(torch.arange(8), 8)
    assert torch.equal(data.x, before) and whole.distance.gt(0).all()
    for rows, batch in ((torch.arange(8), 1), (torch.tensor([6, 1, 3, 7, 0]), 3)):
        part = verdict(rows, batch)
        assert torch.equal(part.forwards, whole.forwards[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attack", "threat"), QUICK, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_back_wins_inside_the_box(attack: IterativeAttack, threat: ThreatModel, channels: int) -> None:
    model = network(channels)
    data = images(model, channels=channels)
    x = data.x.round()  # black and white touch both sides of the box
    with torch.no_grad():
        y = model(x).argmax(1)
    verdict = evaluate(Labels(model), x, y, attack, threat)
    assert verdict.x_adv.min() >= 0 and verdict.x_adv.max() <= 1
    with torch.no_grad():
        assert (model(verdict.x_adv).argmax(1) != y).all()
    assert verdict.forwards.max() <= attack.cost(4)[0] and attack.cost(4)[1] == 0


@pytest.mark.parametrize(("attack", "threat"), QUICK, ids=str)
def test_longer_walks_end_nearer(attack: IterativeAttack, threat: ThreatModel) -> None:
    model = network()
    data = images(model)
    short, long = (Judge()(model, data, replace(attack, steps=steps * attack.steps), threat) for steps in (1, 10))
    assert (long.distance <= short.distance).all() and long.distance.median() < 0.8 * short.distance.median()
    assert attack.access is Access.LABELS and attack.minimises


@pytest.mark.parametrize(("attack", "threat"), QUICK, ids=str)
def test_in_a_suite_what_is_broken_retires(attack: IterativeAttack, threat: ThreatModel) -> None:
    """With a ball and no wish for the nearest: rows leave when they are broken, and the result is inside."""
    kind: Any = dataclass(frozen=True)(type("Member", (type(attack),), {"minimises": False}))
    model = network()
    data, wide = images(model), ThreatModel(threat.norm, 4 * threat.eps)
    long = replace(attack, steps=10 * attack.steps)
    alone = Judge()(model, data, long, wide)
    member = Judge()(model, data, kind(**asdict(long)), wide)
    assert not alone.robust.all() and torch.equal(alone.robust, member.robust)
    broken = ~member.robust
    assert (member.forwards[broken] < alone.forwards[broken]).all()
    assert wide.contains(member.x_adv, data.x)[broken].all()


@pytest.mark.parametrize("attack", [HopSkipJump(candidates=7), Boundary(candidates=7, steps=50)], ids=str)
def test_where_nothing_wins_the_candidates_are_all_it_costs(attack: DecisionAttack) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]

    x = torch.rand(3, 1, 4, 4)
    verdict = evaluate(Constant(), x, torch.zeros(3, dtype=torch.int64), attack, L2)
    assert verdict.robust.all() and verdict.forwards.eq(7).all() and torch.equal(verdict.x_adv, x)


@pytest.mark.parametrize(("attack", "threat"), WALKS, ids=str)
def test_targets_are_reached_from_images_of_the_attackers_own(attack: DecisionAttack, threat: ThreatModel) -> None:
    model = network()
    data = images(model)
    own = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(6)) ** 3
    with torch.no_grad():
        seen = model(own).argmax(1)
        goal = torch.where(data.labels == seen[0], (data.labels + 1) % 4, seen[0])
    with pytest.raises(ConfigError, match="targets need images"):
        evaluate(model, data.x, data.labels, attack, threat, targets=goal)
    ready = replace(attack, images=60)
    verdict = evaluate(Labels(model), data.x, data.labels, ready, threat, targets=goal, attacker=(own, seen))
    there = torch.tensor([bool((seen == wanted).any()) for wanted in goal])
    with torch.no_grad():
        assert torch.equal(model(verdict.x_adv).argmax(1) == goal, there) and there.any()
    assert verdict.prepared_forwards == 60
    far = torch.cdist(data.x.flatten(1), own.flatten(1)).masked_fill(seen != goal[:, None], torch.inf).amin(1)
    assert (verdict.x_adv - data.x).flatten(1).norm(dim=1)[there].le(far[there] + 1e-4).all() or threat is LINF


# the parts


def test_bisection_ends_on_the_winning_side_of_a_known_boundary() -> None:
    class Step(nn.Module):
        """Class 1 where the first pixel is above 0.3."""

        def forward(self, x: Tensor) -> Tensor:
            bright = x[:, 0, 0, :1] - 0.3
            return torch.cat([-bright, bright], 1)

    x, y, far = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), torch.ones(2, 1, 2, 2)
    far[1, 0, 0, 0] = 0.6
    for norm, expected in ((Norm.L2, [[0.3, 0.3], [0.3, 0.5]]), (Norm.LINF, [[0.3, 0.3], [0.3, 0.3]])):
        oracle = Oracle(Step(), x, y, L2, Access.LABELS, Draws(0, torch.arange(2)), minimises=True)
        found = bisect(oracle, x, y, far, norm, 1e-3)
        assert torch.allclose(found[:, 0, 0], torch.tensor(expected), atol=2e-3)
        assert (found[:, 0, 0, 0] > 0.3).all() and oracle.forwards.eq(10).all()


def test_the_nearest_that_wins_is_chosen() -> None:
    pool = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    labels, x, y = torch.tensor([0, 1, 1]), torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])
    first, found = nearest(pool, labels, x, y, targeted=False)
    assert torch.allclose(first[:, 0, 0, 0], torch.tensor([0.2, 0.1, 0.1])) and found.all()
    first, found = nearest(pool, labels, x, y, targeted=True)
    assert torch.allclose(first[:, 0, 0, 0], torch.tensor([0.1, 0.2, 0.0])) and found.tolist() == [True, True, False]


def test_blocks_are_halved_down_to_every_pixel() -> None:
    assert [halved(i, 12) for i in range(7)] == [
        *[(0, 6, 12), (0, 3, 6), (6, 9, 12)],
        *[(0, 1, 3), (3, 4, 6), (6, 7, 9), (9, 10, 12)],
    ]
    assert [halved(i, 12) for i in range(15, 27)] == [(k, k, k + 1) for k in range(12)]
    for level in range(6):  # no number is left out, none is in two blocks
        blocks = [halved(i, 12) for i in range(2**level - 1, 2**level - 1 + min(2**level, 12))]
        assert [place for first, _, last in blocks for place in range(first, last)] == [*range(12)]


def test_the_median_has_half_of_the_boundaries_on_either_side() -> None:
    low, high, largest = torch.tensor([[0.0, 0.0, 0.1], [0.5, 0.2, 0.15], [0.5, 0.8, 0.2]], dtype=torch.float64)
    middle = median(low, high, largest)

    def mass(start: Tensor, end: Tensor) -> Tensor:
        k = start + (end - start) * torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
        density = 0.03133292769944518 / (k + 0.13403850261898806) ** 3.0659694403842903 + 0.16755646970211466
        return torch.trapezoid(density, k, dim=0)

    shares = [1 - radius / largest for radius in (high, middle, low)]
    assert torch.allclose(mass(*shares[:2]), mass(*shares[1:]), rtol=1e-3)
    assert (middle[0] / largest[0] - 0.5).abs() > 0.3, "most boundaries are near the largest radius"


def test_adba_takes_no_targets() -> None:
    model = network()
    data = images(model)
    with pytest.raises(ConfigError, match="takes no targets"):
        evaluate(model, data.x, data.labels, ADBA(steps=2), LINF, targets=(data.labels + 1) % 4)


def test_mosaics_are_in_the_box_and_of_many_grains() -> None:
    x = torch.zeros(200, 3, 8, 8)
    noise = mosaic(x, Draws(0, torch.arange(200)), finest=False)
    assert noise.min() >= 0 and noise.max() <= 1
    colours = torch.tensor([len(image[0].unique()) for image in noise])
    assert colours.min() == 1 and colours.max() == 64 and len(colours.unique()) == 8


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"candidates": 0}, {"images": -1}, {"evaluations": 0}, {"gamma": 0.0}, {"max_evaluations": 5}],
)
def test_settings_of_hopskipjump_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HopSkipJump(**settings)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"searches": 0}])
def test_settings_of_adba_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ADBA(**settings)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"spherical": 0.0}, {"source": 1.0}, {"adaptation": 1.0}])
def test_settings_of_boundary_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Boundary(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs", "threat"),
    [
        (("hopskipjump", {"steps": 8}), ("foolbox:HopSkipJumpAttack", {"steps": 8}), "l2:1"),
        (("hopskipjump", {"steps": 8}), ("foolbox:HopSkipJumpAttack", {"steps": 8}), "linf:0.1"),
        (("hopskipjump", {"steps": 4}), ("art:HopSkipJump", {"max_iter": 4}), "l2:1"),
        (("boundary", {"steps": 1000}), ("foolbox:BoundaryAttack", {"steps": 1000}), "l2:1"),
    ],
)
def test_for_no_more_queries_no_farther_than_theirs(
    ours: tuple[str, dict[str, Any]],
    theirs: tuple[str, dict[str, Any]],
    threat: str,
    record_property: Callable[[str, object], None],
) -> None:
    pytest.importorskip(theirs[0].partition(":")[0])
    model = load_model("zoo:mnist/none")
    x, y = load_data("mnist", n=20, source="bundled")
    mine, other = (evaluate(model, x, y, name, threat, **settings) for name, settings in (ours, theirs))
    figures = [(v.distance.median().item(), v.forwards.double().mean().item()) for v in (mine, other)]
    record_property("median distance and forwards, ours and theirs", figures)
    assert figures[0][1] <= 1.05 * figures[1][1]
    assert (mine.distance / other.distance)[mine.clean].median() <= 1.05
