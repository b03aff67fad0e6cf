"""FAB: exact projections, known distances to linear boundaries, and its authors' own figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from robustbench_local.attacks.fab import FAB, onto_boundary
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.linear import SHAPE, THREATS, distances, linear, two_classes
from tests.helpers.small_networks import COUNT, Jittered, chosen, images, layer, network

NORMS = (Norm.LINF, Norm.L2, Norm.L1)


def shortest(point: np.ndarray, gap: float, slope: np.ndarray, norm: Norm) -> float | None:
    """The length of the shortest move in the box onto gap + <slope, move> = 0, by general solvers; None: no such."""
    size = len(point)
    limits = [(-value, 1 - value) for value in point]
    feasible = linprog(np.zeros(size), A_eq=[slope], b_eq=[-gap], bounds=limits)
    if not feasible.success:
        return None
    if norm is Norm.L2:
        on_plane = {"type": "eq", "fun": lambda move: gap + slope @ move, "jac": lambda move: slope}
        solve: Any = minimize
        nearest = solve(
            lambda move: (move @ move, 2 * move),
            feasible.x,
            jac=True,
            bounds=limits,
            method="SLSQP",
            constraints=on_plane,
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return float(np.linalg.norm(nearest.x))
    eye = np.eye(size)
    extra = np.ones((size, 1)) if norm is Norm.LINF else eye
    count = extra.shape[1]
    found = linprog(
        np.r_[np.zeros(size), np.ones(count)],
        A_ub=np.block([[eye, -extra], [-eye, -extra]]),
        b_ub=np.zeros(2 * size),
        A_eq=[np.r_[slope, np.zeros(count)]],
        b_eq=[-gap],
        bounds=limits + count * [(0, None)],
    )
    assert found.fun is not None
    return float(found.fun)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.3, 2.0, 6.0])
def test_projections_onto_hyperplane_and_box_are_exact(norm: Norm, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 1, 2, 3, generator=generator, dtype=torch.float64)
    points[:5] = points[:5].round()
    slope = torch.randn(points.shape, generator=generator, dtype=torch.float64)
    slope[3:8, :, 0] = 0
    gap = scale * torch.randn(20, generator=generator, dtype=torch.float64)
    moves = onto_boundary(points, gap, slope, norm)
    reached = gap + (slope * moves).flatten(1).sum(1)
    assert (points + moves).min() >= -1e-12 and (points + moves).max() <= 1 + 1e-12
    lengths = ThreatModel(norm, 0.1).distance(moves, torch.zeros_like(moves))
    for k in range(20):
        best = shortest(points[k].flatten().numpy(), gap[k].item(), slope[k].flatten().numpy(), norm)
        if best is None:  # as near as the box allows: every coordinate at its end
            ends = torch.where(slope[k] * gap[k] > 0, 0.0, 1.0)
            assert torch.allclose((points + moves)[k][slope[k] != 0], ends[slope[k] != 0].double())
        else:
            assert abs(reached[k]) < 1e-9 and lengths[k] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_projections_bear_tiny_gradients_and_none(norm: Norm) -> None:
    points = torch.full((3, 1, 2, 2), 0.5)
    slope = torch.tensor([1e-25, 1.0, 0.0]).view(3, 1, 1, 1).expand_as(points)
    moves = onto_boundary(points, torch.tensor([-1e-25, 0.0, 1.0]), slope, norm)
    assert moves[0].sum() == pytest.approx(1) and not moves[1:].any()


@dataclass(frozen=True)
class NoStep(FAB):
    def step(self, state: State, oracle: Oracle, x: Tensor, *rest: object) -> State:
        super().step(state, oracle, x, *rest)  # type: ignore[arg-type]
        return state


@dataclass(frozen=True)
class WrongSign(FAB):
    def step(self, state: State, oracle: Oracle, x: Tensor, *rest: object) -> State:
        new = super().step(state, oracle, x, *rest)  # type: ignore[arg-type]
        return new | {"x_adv": (2 * state["x_adv"] - new["x_adv"]).clamp(0, 1)}


@dataclass(frozen=True)
class Overshoot(FAB):
    eta: float = 2.0


def finds_the_distance(attack: Attack, threat: ThreatModel) -> bool:
    model, x, y, distance = two_classes(threat)
    verdict = evaluate(model, x, y, attack, threat)
    with torch.no_grad():
        success = (model(verdict.x_adv).argmax(1) != y).all()
    ratio = verdict.distance / distance
    near = ratio.max() < 1.01 and ratio.min() > 0.9999
    return bool(success & near) and torch.equal(verdict.robust, verdict.distance > threat.eps)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("targets", [0, 9])
def test_the_distance_to_a_linear_boundary_is_found(threat: ThreatModel, targets: int) -> None:
    assert finds_the_distance(FAB(steps=30, targets=targets), threat)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("broken", [NoStep, WrongSign, Overshoot])
def test_broken_twins_are_caught(threat: ThreatModel, broken: type[FAB]) -> None:
    assert not finds_the_distance(broken(steps=30), threat)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_of_many_classes_is_found(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(2)
    size, classes = SHAPE[0] * SHAPE[1] * SHAPE[2], 6
    weight = 100 * torch.randn(classes, size, generator=generator)  # margins on the boundary are far from rounding
    model = linear(weight, -0.5 * weight.sum(1))
    x = 0.5 + 0.05 * torch.randn(60, *SHAPE, generator=generator).clamp(-3, 3)
    y = model(x).argmax(1)
    distance = distances(model, x, y, norm)
    for attack in (FAB(steps=30), FAB(steps=30, targets=5)):
        verdict = evaluate(model, x, y, attack, ThreatModel(norm, 0.1))
        assert ((verdict.distance / distance - 1) < 0.01).all()


@dataclass(frozen=True)
class Alone(Suite):
    """FAB where samples retire inside the ball."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"fab": FAB(steps=30, restarts=2)}


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_in_a_suite_it_stops_inside_the_ball(threat: ThreatModel) -> None:
    model, x, y, distance = two_classes(threat)
    verdict = evaluate(model, x, y, Alone(), threat)
    assert verdict.robust[distance > threat.eps].all() and not verdict.robust[distance < 0.99 * threat.eps].any()
    assert not verdict.flags
    assert verdict.forwards[distance < 0.9 * threat.eps].max() < 60 < verdict.forwards[verdict.robust].min()
    assert (verdict.distance <= threat.eps + 1e-6).all()


CASES: list[tuple[FAB, str]] = [
    (FAB(steps=8), "linf:0.03"),
    (FAB(steps=8, restarts=2), "l2:0.2"),
    (FAB(steps=8, targets=3), "l1:1.5"),
]


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("attack", "threat"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_in_float64_batch_order_and_company_change_nothing(attack: FAB, threat: str, random: bool) -> None:
    net = network()
    data = images(net, torch.float64)
    before = data.x.clone()
    model: nn.Module = Jittered(net) if random else net

    def verdict(rows: Tensor, batch: int) -> Verdict:
        judge = Judge(seed=3, precision="float64", batch_size=batch, eot=2, draws=3)
        return judge(model, chosen(data, rows), attack, ThreatModel.parse(threat))

    whole = verdict(torch.arange(COUNT), COUNT)
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for rows, batch in ((torch.arange(5), 1), (shuffled, 11)):
        part = verdict(rows, batch)
        for name in ("robust", "forwards", "backwards"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-11)  # L1 divides by small slopes
    assert torch.equal(data.x, before)
    if not random:
        asked = {(int(f), int(b)) for f, b in zip(whole.forwards, whole.backwards, strict=True)}
        assert asked - {(0, 0), attack.cost(classes=4)} == set()  # a minimising attack retires nobody
        with torch.no_grad():
            assert (net(whole.x_adv).argmax(1) != data.labels)[whole.clean].all()
        assert (whole.distance[whole.clean] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_never_leaves_the_box(norm: Norm, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(10, channels, 12, 12, generator=generator)
    x[:4], x[4], x[5] = x[:4].round(), 0.0, 1.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 144, 16), nn.ReLU(), nn.Linear(16, 5))
    asked: list[Tensor] = []
    logits = Oracle.logits

    def counted(self: Oracle, images: Tensor) -> Tensor:
        asked.append(images)
        return logits(self, images)

    monkeypatch.setattr(Oracle, "logits", counted)
    for attack in (FAB(steps=10), FAB(steps=10, targets=2, restarts=2)):
        evaluate(model, x, model(x).argmax(1), attack, ThreatModel(norm, 0.1))
    assert sum(map(len, asked)) == 540 and all(seen.min() >= 0 and seen.max() <= 1 for seen in asked)


def loud() -> nn.Sequential:
    """Its margins near the boundary are far from rounding."""
    net = network()
    layer(net, -1).weight.data *= 1000
    layer(net, -1).bias.data *= 1000
    return net


def test_each_restart_ends_at_the_nearest_image_it_met() -> None:
    net = loud()
    data = images(net)
    every, last = (
        Judge(count=count)(net, data, FAB(steps=15), ThreatModel.parse("linf:0.03")) for count in ("all", "last")
    )
    assert torch.equal(every.x_adv, last.x_adv) and not every.robust.all()


def test_more_restarts_never_end_further_away() -> None:
    net = loud()
    data = images(net)
    once, often = (
        Judge()(net, data, FAB(steps=20, restarts=count), ThreatModel.parse("l2:0.5")).distance for count in (1, 4)
    )
    assert (often <= once).all() and (often < once).any()


def test_what_it_cannot_do_is_refused() -> None:
    net = network()
    data = images(net)
    with pytest.raises(ConfigError, match="cannot be given one"):
        Judge(targets="random")(net, Tensors(data.x, data.labels, data.ids), FAB(), ThreatModel.parse("linf:0.1"))
    for settings in ({"steps": 0}, {"restarts": 0}, {"targets": -1}, {"alpha_max": 2}, {"eta": 0.9}, {"beta": 1}):
        with pytest.raises(ConfigError):
            FAB(**settings)


@pytest.mark.parametrize(
    ("norm", "targets"),
    [
        ("Linf", 2),
        *(pytest.param(norm, 2, marks=pytest.mark.slow) for norm in ("L2", "L1")),
        *(pytest.param(norm, 0, marks=pytest.mark.slow) for norm in ("Linf", "L2", "L1")),
    ],
)
def test_its_images_are_as_near_as_its_authors_own(
    norm: str, targets: int, record_property: Callable[[str, object], None]
) -> None:
    peer = pytest.importorskip("pyautoattack.fab_pt")
    x, y = load_data("mnist", n=30, source="bundled")
    model = load_model("zoo:mnist/adversarial_training").requires_grad_(False)
    threat = ThreatModel(Norm(norm.lower()), 0.3)
    theirs = peer.FABAttack_PT(model, norm=norm, n_iter=30, eps=0.3, device="cpu")
    nearest = torch.full((len(x),), torch.inf)
    with torch.no_grad():
        for place in range(max(1, targets)):
            theirs.target_class = place + 2
            found = theirs.attack_single_run(x, y, is_targeted=bool(targets))
            distance = torch.where(model(found).argmax(1) != y, threat.distance(found, x), torch.inf)
            nearest = torch.minimum(nearest, distance)
    verdict = evaluate(model, x, y, FAB(steps=30, targets=targets), threat)
    tried = verdict.clean & nearest.isfinite()
    ours, peers = verdict.distance[tried].median().item(), nearest[tried].median().item()
    record_property("median distance of ours, of theirs", (ours, peers))
    assert tried.sum() > 25 and ours <= 1.01 * peers
    assert verdict.robust_accuracy <= (nearest > threat.eps)[verdict.clean].double().mean() + 0.005


def test_restarts_know_a_large_ball() -> None:
    """Half of an eps of 1.2 is still as much as any L∞ ball may have without being asked."""
    model, ball = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval(), ThreatModel(Norm.LINF, 1.2, allow_large=True)
    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    assert evaluate(model, x, y, FAB(steps=2, restarts=2), ball).x_adv.isfinite().all()
