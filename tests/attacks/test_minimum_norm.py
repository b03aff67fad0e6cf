"""What holds for every attack that seeks the nearest adversarial image: distances known in closed form, invariances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.boundary import Boundary
from robustbench_local.attacks.cw import CW
from robustbench_local.attacks.ddn import DDN
from robustbench_local.attacks.deepfool import DeepFool
from robustbench_local.attacks.ead import EAD
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fmn import FMN, _project
from robustbench_local.attacks.hopskipjump import HopSkipJump
from robustbench_local.attacks.jsma import JSMA
from robustbench_local.attacks.nearest import Nearest
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.attacks.sigma_zero import SigmaZero
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model

HUGE = {Norm.LINF: 0.49, Norm.L2: 100.0, Norm.L1: 10_000.0, Norm.L0: 784.0}
SHORT: list[tuple[Attack, Norm]] = [
    (DeepFool(), Norm.L2),
    (DeepFool(), Norm.LINF),
    (CW(steps=25, searches=2, constant=5, step_size=0.1), Norm.L2),
    (DDN(steps=30), Norm.L2),
    (FMN(steps=30), Norm.L2),
    (FMN(steps=30), Norm.LINF),
    (FMN(steps=30), Norm.L1),
    (FMN(steps=30), Norm.L0),
    (EAD(steps=20, searches=2, constant=20, rule="l1"), Norm.L1),
    (EAD(steps=20, searches=2, constant=20), Norm.L1),
    (JSMA(), Norm.L0),
    (JSMA(saliency="slope"), Norm.L0),
    (PDPGD(steps=60), Norm.L1),
    (PDPGD(steps=60, polish=0.5), Norm.L1),
    (SigmaZero(steps=30), Norm.L0),
    (Nearest(passes=130), Norm.L2),
    (Nearest(passes=130), Norm.LINF),
]
EVERY = pytest.mark.parametrize(("attack", "norm"), SHORT, ids=[f"{type(a).__name__}-{n}" for a, n in SHORT])


def name(value: object) -> str:
    return type(value).__name__ if isinstance(value, Attack) else str(value)


def threat(norm: Norm, eps: float | None = None) -> ThreatModel:
    return ThreatModel(norm, HUGE[norm] if eps is None else eps)


# distances known in closed form

SIZE = (1, 6, 6)
DUAL = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf}
EXACT: list[tuple[Attack, Norm, float]] = [  # how many times the true distance may be found
    (DeepFool(), Norm.L2, 1.03),
    (DeepFool(), Norm.LINF, 1.03),
    (CW(steps=200, searches=7), Norm.L2, 1.03),
    (DDN(), Norm.L2, 1.03),
    (FMN(), Norm.L2, 1.01),
    (FMN(), Norm.LINF, 1.02),
    (FMN(), Norm.L1, 1.05),
    (EAD(steps=100, searches=7, rule="l1", beta=0.01), Norm.L1, 1.15),
    (PDPGD(), Norm.L1, 1.05),
    (PDPGD(polish=0.4), Norm.L1, 1.01),
]


def linear(weight: Tensor, bias: Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).to(weight)
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def halves(norm: Norm) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """(two classes apart by a plane, images far from the box, labels, distances to the plane)."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, math.prod(SIZE), generator=generator, dtype=torch.float64)
    weight[1, 7] = weight[0, 7] + 5  # one pixel matters most, so that L1 is decided by it
    normal = weight[1] - weight[0]
    wanted = torch.linspace(0.05, 0.3, 12, dtype=torch.float64) * (0.3 if norm is Norm.LINF else 1)
    x = 0.5 + 0.01 * torch.randn(len(wanted), math.prod(SIZE), generator=generator, dtype=torch.float64)
    missing = wanted * normal.norm(p=DUAL[norm]) - (x - 0.5) @ normal
    x = (x + missing[:, None] * normal / normal.dot(normal)).view(-1, *SIZE)
    return linear(weight, -0.5 * weight.sum(1)), x, torch.ones(len(x), dtype=torch.int64), wanted


class Twisted:
    """An oracle whose gradients come back times a factor."""

    def __init__(self, oracle: Oracle, factor: float) -> None:
        self.oracle, self.factor = oracle, factor

    def __getattr__(self, key: str) -> Any:
        return getattr(self.oracle, key)

    def __getitem__(self, rows: Tensor) -> Twisted:
        return Twisted(self.oracle[rows], self.factor)

    def grad(self, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        value, slope, logits = self.oracle.grad(*given)
        return value, self.factor * slope, logits

    def jacobian(self, x: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        slopes, logits = self.oracle.jacobian(x, among)
        return self.factor * slopes, logits


def nearest(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, factor: float = 1) -> Tensor:
    """(N,): how far away a success was found, infinite where none was."""
    draws = Draws(0, torch.arange(len(x)), dtype=x.dtype)
    oracle = Oracle(model, x, y, threat(norm), attack.access, draws, minimises=True)
    x_adv = attack(Twisted(oracle, factor), x.clone(), y, threat(norm), draws)  # type: ignore[arg-type]
    with torch.no_grad():
        success = model(x_adv).argmax(1) != y
    return torch.where(success & (x_adv >= 0).flatten(1).all(1), threat(norm).distance(x_adv, x), torch.inf)


def exact(attack: Attack, norm: Norm, within: float, factor: float = 1) -> bool:
    model, x, y, distance = halves(norm)
    found = nearest(attack, model, x, y, norm, factor)
    assert (found >= distance - 1e-9).all()  # nothing is nearer than the boundary
    return bool((found <= within * distance + 1e-3).all())


@pytest.mark.parametrize(("attack", "norm", "within"), EXACT, ids=name)
def test_the_distance_to_a_plane_is_found(attack: Attack, norm: Norm, within: float) -> None:
    assert exact(attack, norm, within)


@pytest.mark.parametrize("factor", [0, -1])
@pytest.mark.parametrize(("attack", "norm", "within"), EXACT, ids=name)
def test_without_its_gradient_or_against_it_nothing_is_exact(
    attack: Attack, norm: Norm, within: float, factor: float
) -> None:
    if isinstance(attack, DeepFool) and factor == -1:
        pytest.skip("all gaps to the linearised boundaries are taken as positive: tested with more classes")
    assert not exact(attack, norm, within, factor)


def regions() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(6, math.prod(SIZE), generator=generator, dtype=torch.float64)
    model = linear(weight, -0.5 * weight.sum(1))
    x = 0.5 + 0.05 * torch.randn(40, *SIZE, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def boundary(model: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    layer = model[1]  # type: ignore[index]
    weight = layer.weight.detach()
    logits = model(x).detach()
    slope = (weight[:, None] - weight[None]).norm(p=DUAL[norm], dim=2)[y].scatter(1, y[:, None], 1.0)
    gap = (logits.gather(1, y[:, None]) - logits) / slope
    nearest: Tensor = gap.scatter(1, y[:, None], torch.inf).amin(1)
    return nearest


@pytest.mark.parametrize("norm", [Norm.L2, Norm.LINF])
def test_deepfool_goes_to_the_nearest_of_many_classes_at_once(norm: Norm) -> None:
    model, x, y = regions()
    distance = boundary(model, x, y, norm)
    verdict = evaluate(model, x, y, DeepFool(overshoot=0.01), threat(norm), precision="float64")
    assert (verdict.distance <= 1.01 * (distance + 1e-4) + 1e-9).all() and (verdict.distance >= distance).all()
    assert verdict.backwards.eq(6).all() and verdict.forwards.eq(3).all()  # one step, and a look at where it led
    wrong = nearest(DeepFool(), model, x, y, norm, -1)
    assert (wrong > 1.5 * distance).double().mean() > 0.5


@pytest.mark.parametrize(("attack", "norm"), [(FMN(), Norm.L2), (FMN(), Norm.LINF)], ids=name)
def test_the_nearest_of_many_classes_is_mostly_found(attack: Attack, norm: Norm) -> None:
    model, x, y = regions()
    share = nearest(attack, model, x, y, norm) / boundary(model, x, y, norm)
    assert share.median() < 1.01 and share.mean() < 1.2


def test_pixels_that_count_alone_are_all_that_l0_attacks_change() -> None:
    """Class 1 needs three pixels of five, whatever else."""
    weight = torch.zeros(2, math.prod(SIZE), dtype=torch.float64)
    weight[1, [3, 8, 11, 20, 33]] = 1
    weight[0] = -0.001
    model = linear(weight, torch.tensor([2.5, 0.0], dtype=torch.float64))
    x = torch.zeros(3, *SIZE, dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.int64)
    assert nearest(FMN(step_size=3), model, x, y, Norm.L0).tolist() == [3] * 3
    assert nearest(SigmaZero(steps=100), model, x, y, Norm.L0).tolist() == [5] * 3  # what counts alike moves together
    assert nearest(JSMA(), model, x, y, Norm.L0).tolist() == [4] * 3  # it goes by pairs
    for twisted in (-1, 0):
        for attack in (FMN(step_size=3), SigmaZero(steps=100), JSMA()):
            assert nearest(attack, model, x, y, Norm.L0, twisted).isinf().all()


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1, Norm.LINF, Norm.L0])
def test_fmn_projects_onto_a_ball_of_each_samples_own(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.full((9, 3, 5, 5), 0.5, dtype=torch.float64)
    delta = 0.4 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.2
    for eps in (0.0, 0.01, 0.3, 2.0, 1000.0):
        if norm is Norm.L0:
            eps = float(round(eps))
        radius = torch.full((9, 1, 1, 1), eps, dtype=torch.float64)
        wide = ThreatModel(norm, eps, allow_large=True)
        assert torch.allclose(x + _project(delta, radius, norm), wide.project(x + delta, x), atol=1e-9)


# invariances


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 16), nn.Tanh(), nn.Linear(16, 4)
        ).eval()


def images(model: nn.Module, count: int = 10) -> Tensors:
    """Random images, a third of their pixels black or white, labelled as the network sees them but for every sixth."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64) * 1.5 - 0.25
    x = x.clamp(0, 1)
    with torch.no_grad():
        y = model.double()(x).argmax(1)
    y[::6] = (y[::6] + 1) % 4
    return Tensors(x, y, torch.arange(100, 100 + count))


@EVERY
def test_batch_order_and_company_change_nothing(attack: Attack, norm: Norm) -> None:
    model = network()
    data = images(model)
    before = data.x.clone()

    def verdict(rows: Tensor, batch: int) -> Any:
        chosen = Tensors(data.x[rows], data.labels[rows], data.ids[rows])
        return Judge(seed=3, precision="float64", batch_size=batch)(model, chosen, attack, threat(norm))

    everyone = torch.arange(len(data))
    whole = verdict(everyone, len(data))
    assert torch.equal(data.x, before)
    assert (whole.distance > 0)[whole.clean].any()
    shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    for rows, batch in ((everyone, 1), (shuffled, 5), (shuffled[:6], 4)):
        part = verdict(rows, batch)
        for what in ("clean", "robust", "forwards", "backwards"):
            assert torch.equal(getattr(part, what), getattr(whole, what)[rows]), what
        assert torch.allclose(part.distance, whole.distance[rows], rtol=0, atol=1e-9)
        if not isinstance(attack, FMN | Nearest):  # of two successes on one sphere, rounding says which is nearer
            assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-9)


class Times(nn.Module):
    """A network whose logits are multiplied."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.factor * self.net(x)
        return answer


def moved_by_scale(attack: Attack, norm: Norm) -> float:
    """How much nearer or farther than of the network itself the images are found, at most, if its logits are multiplied
    by 0.01 and by 100: 0.02 for a fiftieth.
    """
    net = network()
    data = images(net)
    plain, small, large = (
        evaluate(Times(net, factor), data.x, data.labels, attack, threat(norm), precision="float64")
        for factor in (1, 0.01, 100)
    )
    tried = plain.clean & ~plain.robust
    assert tried.sum() > 5
    apart = torch.stack([found.distance[tried] / plain.distance[tried] for found in (small, large)])
    return (apart - 1).abs().amax().item()


class PaperCW(CW):
    """With c as the paper has it, the same whatever the logits."""

    def unit(self, left: Tensor) -> Tensor:
        return torch.ones_like(left).view(-1, 1, 1, 1)


class PaperEAD(EAD):
    def unit(self, slope: Tensor) -> Tensor:
        return slope.new_ones(len(slope), 1, 1, 1)


RESCALED: list[tuple[Attack, Norm]] = [
    *SHORT,
    (FAB(steps=20), Norm.L2),
    (FAB(steps=20), Norm.LINF),
    (FAB(steps=20), Norm.L1),
    (FAB(steps=20, targets=2), Norm.L2),
    (HopSkipJump(steps=2), Norm.L2),
    (Boundary(steps=30), Norm.L2),
]


@pytest.mark.parametrize(("attack", "norm"), RESCALED, ids=[f"{type(a).__name__}-{n}" for a, n in RESCALED])
def test_logits_may_be_multiplied(attack: Attack, norm: Norm) -> None:
    assert moved_by_scale(attack, norm) < 0.02


@pytest.mark.parametrize("abort_early", [True, False])
def test_times_a_power_of_two_cw_is_the_same_to_the_last_bit(abort_early: bool) -> None:
    data = images(network())
    x, y, net = data.x.float(), data.labels, network().float()
    attack = CW(steps=40, searches=4, step_size=0.1, abort_early=abort_early)
    found, same = (evaluate(model, x, y, attack, threat(Norm.L2)).x_adv for model in (net, Times(net, 1024)))
    assert torch.equal(same, found)


def test_twins_that_see_the_size_of_logits_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved_by_scale(PaperEAD(steps=20, searches=2, constant=20), Norm.L1) > 0.1
    assert moved_by_scale(PaperCW(steps=25, searches=2, constant=5, step_size=0.1), Norm.L2) > 0.1
    monkeypatch.setattr(losses, "spread_alike", lambda loss: loss)
    assert moved_by_scale(DDN(steps=30), Norm.L2) > 0.1


@EVERY
@pytest.mark.parametrize("targeted", [False, True])
def test_what_is_broken_lies_in_the_ball_and_all_in_the_box(attack: Attack, norm: Norm, targeted: bool) -> None:
    if targeted and isinstance(attack, DeepFool | Nearest):
        pytest.skip("takes no targets")
    model = network().float()
    data = images(model)
    x, y = data.x.float(), data.labels
    model.float()
    found = evaluate(model, x, y, attack, threat(norm), targets="random" if targeted else None)
    broken = found.clean & ~found.robust
    assert broken.double().mean() > (0.2 if targeted else 0.4)
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    for share in (0.5, 1.0, 1.5):
        eps = share * found.distance[broken].median().item()
        ball = threat(norm, min(eps, 0.49) if norm is Norm.LINF else float(round(eps)) if norm is Norm.L0 else eps)
        verdict = evaluate(model, x, y, attack, ball, targets="random" if targeted else None)
        assert (ball.contains(verdict.x_adv, x) | verdict.robust | ~verdict.clean).all()
        assert torch.equal(verdict.x_adv, found.x_adv)  # the same search, read off at another radius


@EVERY
def test_in_a_suite_it_stops_at_what_is_in_the_ball(attack: Attack, norm: Norm) -> None:
    model = network().float()
    data = images(model)
    model.float()
    x, y = data.x.float(), data.labels
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    draws = Draws(0, torch.arange(len(x)))
    found = evaluate(model, x, y, attack, threat(norm))
    eps = found.distance[~found.robust].max().item()
    ball = threat(norm, eps if norm is Norm.L0 else 1.001 * eps)
    oracle = Oracle(model, x, y, ball, attack.access, draws)
    x_adv = attack(oracle, x.clone(), y, ball, draws)
    broken = oracle.broken
    assert broken.sum() >= 0.8 * (~found.robust).sum()
    with torch.no_grad():
        assert (model(x_adv).argmax(1) != y)[broken].all()
    assert ball.contains(x_adv, x)[broken].all()
    assert (oracle.forwards <= found.forwards + 1)[broken].all()
    again = oracle.forwards.clone()
    attack(oracle[broken], x[broken], y[broken], ball, draws[broken])
    assert torch.equal(oracle.forwards, again)  # what is broken is left alone


@EVERY
def test_budgets_are_hard_and_frozen_rows_do_no_harm(attack: Attack, norm: Norm) -> None:
    model = network().float()
    data = images(model)
    model.float()
    for budget in (1, 2, 5, 8):
        verdict = evaluate(model, data.x.float(), data.labels, attack, threat(norm), budget=budget)
        assert verdict.forwards.max() <= budget and verdict.x_adv.isfinite().all()
        assert all(flag == "unchecked" or "outside" in flag for flag in verdict.flags)  # a small budget pays no checks


def test_targets_are_reached_or_refused() -> None:
    model = network().float()
    data = images(model)
    model.float()
    x, y = data.x.float(), data.labels
    with torch.no_grad():
        clean = model(x)
    for attack, norm in SHORT:
        if isinstance(attack, DeepFool | Nearest):
            with pytest.raises(ConfigError, match=r"takes no targets|cannot be given one to reach"):
                evaluate(model, x, y, attack, threat(norm), targets="random")
            continue
        goal = clean.scatter(1, y[:, None], -torch.inf).topk(2, 1).indices[:, 1]
        verdict = evaluate(model, x, y, attack, threat(norm), targets=goal)
        with torch.no_grad():
            reached = model(verdict.x_adv).argmax(1) == goal
        assert torch.equal(verdict.clean & ~verdict.robust, verdict.clean & reached), attack
        assert reached[verdict.clean].double().mean() > 0.3, attack


class Firm(nn.Module):
    """A linear classifier that no image of the box moves away from class 0, gradients and all."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear(torch.randn(4, 784, generator=torch.Generator().manual_seed(0)), torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x) + torch.tensor([1e4, 0, 0, 0])
        return answer


LONG: list[tuple[Attack, Norm]] = [
    (DeepFool(steps=7), Norm.L2),
    (CW(steps=30, searches=3, abort_early=False), Norm.L2),
    (DDN(steps=9), Norm.L2),
    (FMN(steps=9), Norm.L0),
    (EAD(steps=30, searches=2, abort_early=False), Norm.L1),
    (JSMA(), Norm.L0),
    (JSMA(saliency="slope"), Norm.L0),
    (SigmaZero(steps=9), Norm.L0),
    (PDPGD(steps=9, polish=0.4), Norm.L1),
]


@pytest.mark.parametrize(("attack", "norm"), LONG, ids=name)
def test_the_cost_is_what_was_announced(attack: Attack, norm: Norm) -> None:
    x = 0.1 + 0.8 * torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    verdict = evaluate(Firm(), x, torch.zeros(3, dtype=torch.int64), attack, threat(norm))
    assert verdict.robust.all()
    assert (int(verdict.forwards.max()), int(verdict.backwards.max())) == attack.cost(4)
    assert verdict.forwards.min() == verdict.forwards.max()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DeepFool, {"steps": 0}),
        (DeepFool, {"overshoot": -0.1}),
        (CW, {"steps": 0}),
        (CW, {"searches": 0}),
        (CW, {"constant": 0}),
        (CW, {"confidence": -1}),
        (CW, {"step_size": 0}),
        (EAD, {"beta": -1}),
        (EAD, {"rule": "l2"}),
        (DDN, {"gamma": 1}),
        (DDN, {"start": 0}),
        (DDN, {"steps": 0}),
        (FMN, {"gamma": 0}),
        (FMN, {"step_size": 0}),
        (FMN, {"steps": 0}),
        (JSMA, {"theta": 0}),
        (JSMA, {"theta": 2}),
        (JSMA, {"gamma": 0}),
        (JSMA, {"saliency": "map"}),
        (PDPGD, {"steps": 0}),
        (PDPGD, {"step_size": 0}),
        (PDPGD, {"ratio": 0}),
        (PDPGD, {"ratio": 1.1}),
        (PDPGD, {"dual_step": 0}),
        (PDPGD, {"polish": 1}),
        (SigmaZero, {"steps": 0}),
        (SigmaZero, {"step_size": 0}),
        (SigmaZero, {"sigma": 0}),
        (SigmaZero, {"threshold": 1}),
        (SigmaZero, {"adapt": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused(kind: type[Attack], settings: dict[str, float | str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        kind(**settings)


def test_a_clear_success_is_kept_before_a_nearer_one_that_might_be_a_tie() -> None:
    model = linear(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0]))
    x, y = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)
    oracle = Oracle(model, x, y, threat(Norm.L2), DDN.access, Draws(0, torch.arange(1)), minimises=True)
    for value, kept in ((0.50003, 0.50003), (0.9, 0.9), (0.50001, 0.9), (0.6, 0.6), (0.7, 0.6)):
        oracle.labels(torch.full_like(x, value))
        assert torch.allclose(oracle.best(x), torch.tensor(kept))


# beside peers


@pytest.fixture(autouse=True)
def _kept_random_state() -> Iterator[None]:
    with torch.random.fork_rng():  # peers draw from the global generator
        torch.manual_seed(0)
        yield


PEERS = [
    (DeepFool(), Norm.L2, "L2DeepFoolAttack"),
    (DeepFool(), Norm.LINF, "LinfDeepFoolAttack"),
    (DDN(), Norm.L2, "DDNAttack"),
    (FMN(), Norm.LINF, "LInfFMNAttack"),
    (FMN(), Norm.L1, "L1FMNAttack"),
    (FMN(), Norm.L2, "L2FMNAttack"),
    (FMN(), Norm.L0, "L0FMNAttack"),
    (SigmaZero(), Norm.L0, "L0FMNAttack"),  # foolbox has no sigma-zero
]


@pytest.mark.parametrize("source", ["mnist/none", "mnist/adversarial_training", "cifar10/none"])
@pytest.mark.parametrize(("attack", "norm", "theirs"), PEERS, ids=name)
@pytest.mark.slow
def test_no_farther_than_foolbox(attack: Attack, norm: Norm, theirs: str, source: str, record_property: Any) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = load_model(f"zoo:{source}")
    x, y = load_data(source.split("/")[0], n=20 if "cifar" in source else 50, source="bundled")
    ours = evaluate(model, x, y, attack, threat(norm))
    judged = foolbox.PyTorchModel(model, bounds=(0, 1))
    found = getattr(foolbox.attacks, theirs)()(judged, x, y, epsilons=None)[0]
    with torch.no_grad():
        success = model(found).argmax(1) != y
    other = torch.where(success, threat(norm).distance(found, x), torch.inf)[ours.clean]
    mine = torch.where(ours.robust, torch.inf, ours.distance)[ours.clean]
    if norm is Norm.LINF:  # beyond 0.49 the judge calls an image robust
        other = torch.where(other > 0.49, torch.inf, other)
    eps = other[other.isfinite()].median()
    ratio = torch.where(mine == other, 1.0, mine / other)  # both infinite: alike
    record_property("median, theirs; of the ratio", (mine.median(), other.median(), ratio.median()))
    record_property("success", (mine.isfinite().double().mean(), other.isfinite().double().mean()))
    assert ratio.median() <= 1.005 and mine.isfinite().sum() >= other.isfinite().sum()
    apart = (mine > 1.002 * eps).double() - (other > eps).double()
    luck = apart.square().sum().sqrt() / len(apart)  # neither draws, but which of a few images each misses is chance
    assert float(apart.mean()) <= max(0.005, 2 * float(luck))


def test_of_near_ties_the_nearest_is_kept_and_any_clear_success_is_worth_more() -> None:
    """Distances of 1e-6 apart are told apart, and so are near-ties; a clear success wins however far it is."""
    model = linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5]))
    x = torch.full((1, 1, 1, 1), 0.5 - 1e-3)
    draws = Draws(0, torch.zeros(1, dtype=torch.int64))
    oracle = Oracle(model, x, torch.zeros(1, dtype=torch.int64), threat(Norm.L2), Access.SCORES, draws, minimises=True)
    ties, clear = [0.50002, 0.500016, 0.500018], [0.9, 0.6, 0.600001]
    for asked, best in ((ties, 0.500016), (clear, 0.6), (ties, 0.6)):
        for value in asked:
            oracle.logits(torch.full_like(x, value))
        assert oracle.best(x).item() == pytest.approx(best, abs=1e-7)
        oracle.logits(torch.tensor(asked).view(1, 3, 1, 1, 1))  # a population, all at once
        assert oracle.best(x).item() == pytest.approx(best, abs=1e-7)


def test_a_jacobian_brings_its_logits() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    model = linear(weight, torch.zeros(3))
    draws = Draws(0, torch.arange(5))
    oracle = Oracle(model, x, torch.zeros(5, dtype=torch.int64), threat(Norm.L2), Access.GRADIENTS, draws)
    slopes, logits = oracle.jacobian(x)
    assert torch.equal(logits, model(x)) and torch.allclose(slopes.flatten(2), weight.expand(5, 3, 4))
    assert oracle.forwards.tolist() == [1] * 5 and oracle.backwards.tolist() == [3] * 5


def test_a_distance_beyond_the_ball_is_no_fault_of_a_minimising_attack() -> None:
    weight = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    x = torch.full((2, 1, 1, 2), 0.3)
    model = linear(weight, torch.tensor([1.0, -1.0]))
    verdict = evaluate(model, x, torch.zeros(2, dtype=torch.int64), FAB(), "linf:0.1")
    assert verdict.robust.all() and (verdict.distance > 0.15).all() and not verdict.flags
