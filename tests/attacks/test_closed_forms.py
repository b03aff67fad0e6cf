"""Linear classifiers, where the distance to the boundary is known: what must be broken is, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.bim import BIM
from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.sparse_l1 import SparseL1
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from tests.helpers.linear import GAP, SHAPE, THREATS, distances, linear, two_classes


def breaks_exactly_the_near(attack: Attack, threat: ThreatModel) -> bool:
    model, x, y, distance = two_classes(threat)
    verdict = evaluate(model, x, y, attack, threat)
    assert verdict.clean.all()
    return torch.equal(verdict.robust, distance > threat.eps)


def attacks(threat: ThreatModel) -> list[Attack]:
    long = None if threat.norm is Norm.LINF else threat.eps  # long steps: the curved ball is walked around
    sparse = [SparseL1(step_size=long, random_start=False)] if threat.norm is Norm.L1 else []
    return [FGSM(), BIM(), PGD(step_size=long), PGD(step_size=long, loss="margin"), *sparse]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_near_points_are_broken_and_no_others(threat: ThreatModel) -> None:
    for attack in attacks(threat):
        assert breaks_exactly_the_near(attack, threat), attack


class WrongSign(ThreatModel):
    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        return -super().steepest(grad, x_adv, x, sparsity)


class NoStep(ThreatModel):
    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        return torch.zeros_like(x)


class NoProjection(ThreatModel):
    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        return 1.01 * super().steepest(grad, x_adv, x, sparsity)  # FGSM's step alone would just stay inside

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return x_adv


def twin(attack: Attack, broken: type[ThreatModel]) -> Attack:
    """The same attack with broken geometry; the judge keeps the true one."""

    @dataclass(frozen=True)
    class Twin(type(attack)):  # type: ignore[misc]
        def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
            x_adv: Tensor = super().__call__(oracle, x, y, broken(threat.norm, threat.eps), draws)
            return x_adv

    return Twin(**asdict(attack))


@pytest.mark.parametrize("broken", [WrongSign, NoStep, NoProjection])
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_broken_twins_are_caught(threat: ThreatModel, broken: type[ThreatModel]) -> None:
    for attack in attacks(threat):
        assert not breaks_exactly_the_near(twin(attack, broken), threat), attack


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", ["linf:0", "linf:0.3", "l2:2", "l1:0.5", "l1:12"])
def test_no_query_leaves_ball_and_box(text: str, channels: int, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pixels touch 0 and 1; without the projection some do."""
    generator, threat = torch.Generator().manual_seed(7), ThreatModel.parse(text)
    x = (3 * torch.rand(12, channels, 9, 8, generator=generator) - 1).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 72, 16), nn.Tanh(), nn.Linear(16, 5))
    asked: list[Tensor] = []
    grad = Oracle.grad

    def watched(self: Oracle, x_adv: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(threat.contains(x_adv, self._x))
        return grad(self, x_adv, y, loss)

    monkeypatch.setattr(Oracle, "grad", watched)
    listed: list[Attack] = [BIM(), PGD(steps=8, restarts=2), PGD(steps=8, step_size=0.5)]
    if threat.norm is Norm.L1:
        listed.append(SparseL1(steps=8))
    for attack in listed:
        asked.clear()
        given = twin(attack, NoProjection) if broken else attack
        verdict = evaluate(model, x, model(x).argmax(1), given, threat, count="last")
        inside = len(asked) > 1 and all(query.all() for query in asked) and not verdict.flags
        assert inside is not broken or not threat.eps


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.006), (Norm.L2, 0.04), (Norm.L1, 0.09)])
def test_more_classes_need_the_multi_targeted_margin(
    norm: Norm, eps: float, record_property: Callable[[str, object], None]
) -> None:
    generator = torch.Generator().manual_seed(2)
    size, classes, threat = SHAPE[0] * SHAPE[1] * SHAPE[2], 8, ThreatModel(norm, eps)
    weight = torch.randn(classes, size, generator=generator) * torch.linspace(0.1, 3, classes)[:, None]
    model = linear(weight, -0.5 * weight.sum(1))
    x = 0.5 + 0.1 * torch.randn(600, *SHAPE, generator=generator).clamp(-3, 3)
    y = model(x).argmax(1)
    distance = distances(model, x, y, norm)
    keep = (distance - eps).abs() > GAP
    x, y, distance = x[keep], y[keep], distance[keep]
    assert x.min() > eps and x.max() < 1 - eps
    assert 0.2 < (distance < eps).double().mean() < 0.8

    exact = evaluate(model, x, y, PGD(loss="multi_targeted", step_size=eps), threat)
    assert torch.equal(exact.robust, distance > eps)

    entropy = evaluate(model, x, y, PGD(loss="ce", step_size=eps), threat)
    assert entropy.robust[exact.robust].all()  # nothing beyond eps is broken by anyone
    overstated = entropy.robust_accuracy - exact.robust_accuracy
    record_property(f"cross-entropy overstates robust accuracy by ({threat})", overstated)
    assert overstated > 0


TWO_PIXELS = torch.tensor([[1.0, -2.0], [-1.0, 1.0]])  # the loss of class 0 rises along (-2, 3)


@pytest.mark.parametrize(
    ("threat", "x", "expected", "robust"),
    [
        ("linf:0.1", (0.6, 0.29), (0.5, 0.39), False),  # logits (0.02, -0.31) become (-0.28, -0.11)
        ("linf:0.1", (0.95, 0.05), (0.85, 0.15), True),  # logits (0.85, -0.9) become (0.55, -0.7)
        ("linf:0.1", (0.05, 0.02), (0.0, 0.12), False),  # the box holds the first pixel at 0
        ("l2:0.1", (0.6, 0.29), (0.6 - 0.2 / 13**0.5, 0.29 + 0.3 / 13**0.5), False),
        ("l1:0.1", (0.6, 0.29), (0.6, 0.39), True),  # only the steeper pixel moves: logits (-0.18, -0.21)
    ],
)
def test_fgsm_by_hand(threat: str, x: tuple[float, float], expected: tuple[float, float], robust: bool) -> None:
    model = linear(TWO_PIXELS, torch.zeros(2))
    image, y = torch.tensor(x).view(1, 1, 1, 2), torch.tensor([0])
    verdict = evaluate(model, image, y, "fgsm", threat)
    assert torch.allclose(verdict.x_adv.flatten(), torch.tensor(expected), atol=1e-6)
    assert verdict.robust.tolist() == [robust]
    assert verdict.forwards.tolist() == verdict.backwards.tolist() == [1]


def test_fgsm_towards_a_target_by_hand() -> None:
    """From class 0 towards class 2 = -class 0: against the gradient of the first logit, not of the second."""
    model = linear(torch.tensor([[1.0, 1.0], [1.0, -3.0], [-1.0, -1.0]]), torch.zeros(3))
    image, y = torch.tensor([0.6, 0.5]).view(1, 1, 1, 2), torch.tensor([0])
    verdict = evaluate(model, image, y, FGSM(loss="margin"), "linf:0.1", targets=torch.tensor([2]))
    assert torch.allclose(verdict.x_adv.flatten(), torch.tensor([0.5, 0.4]), atol=1e-6)
    assert verdict.robust.tolist() == [True]  # it lost accuracy nowhere: class 2 was not reached
