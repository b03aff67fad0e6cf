"""Random models: no lucky draws, expectation over randomness, and strangers who do not say that they are random."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.defense import Defended, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge

COUNT, STEPS, SLIP = 200, 40, 0.02


class Slipping(Defended):
    """Always right, but for a slip with 2 % probability per image and draw."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        slips = draws.uniform() < SLIP
        right = (x.flatten(1).mean(1) > 0.5).long()
        answer = torch.where(slips, 1 - right, right)
        return 5 * nn.functional.one_hot(answer, 2).to(x) + 0 * x.sum()


def halves() -> tuple[Tensor, Tensor]:
    """Dark images of class 0 and bright ones of class 1, no two alike: equal ones would share their draws."""
    y = torch.arange(COUNT) % 2
    bright = 0.2 + 0.6 * y + torch.linspace(-1e-3, 1e-3, COUNT)
    return bright.view(-1, 1, 1, 1).expand(-1, 1, 3, 3).contiguous(), y


@dataclass(frozen=True)
class Null(IterativeAttack):
    """Asks at the clean image, again and again, and never moves."""

    access: ClassVar[Access] = Access.GRADIENTS

    steps: int = STEPS
    restarts: int = 1

    def rounds(self, oracle: Oracle) -> int:
        return self.restarts

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        oracle.grad(state["x_adv"], y, losses.ce)
        return state


@pytest.mark.parametrize("eot", [1, 20])
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_null_attack_takes_nothing_from_a_random_model(eot: int, restarts: int) -> None:
    x, y = halves()
    verdict = evaluate(Slipping(), x, y, Null(restarts=restarts), "linf:0.1", eot=eot)
    assert verdict.robust.all() and verdict.bits is not None and verdict.bits.shape == (COUNT, 20)
    for accuracy in (verdict.clean_accuracy, verdict.robust_accuracy, verdict.robust_accuracy_8bit):
        assert abs(accuracy - (1 - SLIP)) < 0.01  # 4,000 draws: more than four standard errors
    assert verdict.forwards.tolist() == [restarts * (STEPS + 1) * eot] * COUNT  # nobody retired
    assert verdict.backwards.tolist() == [restarts * STEPS * eot] * COUNT


def test_a_judge_that_retires_on_one_draw_would_report_nonsense() -> None:
    """The trap: the same model, the same null attack, and what is broken once stays broken."""
    x, y = halves()
    robust = torch.ones(COUNT, dtype=torch.bool)
    draws = Draws(0, torch.arange(COUNT))
    for step in range(STEPS):
        robust &= call(Slipping(), x, draws.stream(step)).argmax(1) == y
    assert robust.double().mean() < 0.6


def test_the_verdict_comes_from_draws_of_its_own() -> None:
    """Neither the clean verdict nor any query of the search has seen the draws that judge what the attack found."""
    x, y = halves()
    first, second = (evaluate(Slipping(), x, y, Null(steps=1), "linf:0.1", seed=seed) for seed in (0, 1))
    assert first.bits is not None and second.bits is not None and first.clean_bits is not None
    assert not torch.equal(first.bits, second.bits) and not torch.equal(first.bits, first.clean_bits)
    asked: list[bytes] = []

    class Listening(Slipping):
        def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
            assert draws is not None
            if len(x) == COUNT:  # the judge and the attack; checks ask about fewer
                asked.append(draws.stream("ear").uniform(2).numpy().tobytes())
            return super().forward(x, draws)

    evaluate(Listening(), x, y, Null(steps=3), "linf:0.1", eot=4, draws=6)
    verdict, earlier = asked[-12:-6], asked[:-12]  # the last six judge the rounded images on the same draws
    assert len(set(verdict)) == 6 and not set(verdict) & set(earlier)
    search = asked[-12 - 4 * 4 : -12]
    assert len(set(search)) == 16  # every search draw is a new one


class Undeclared(nn.Module):
    """Noise from the global generator, also in evaluation mode, and not a word about it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        bright = (x + self.size * torch.randn_like(x)).flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright], 1)


@pytest.mark.parametrize("count", [1, 40])
def test_undeclared_randomness_is_measured_flagged_and_contained(count: int) -> None:
    x, y = halves()
    x, y = x[:count], y[:count]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = evaluate(Undeclared(0.5), x, y, PGD(steps=5), "linf:0.2", eot=3)
    assert torch.equal(before, torch.get_rng_state())
    assert first.flags == ("undeclared_randomness",)
    assert first.bits is not None and first.bits.shape == (count, 20)
    torch.manual_seed(8)
    second = evaluate(Undeclared(0.5), x, y, PGD(steps=5), "linf:0.2", eot=3)
    assert second.bits is not None and torch.equal(first.bits, second.bits)
    assert torch.equal(first.x_adv, second.x_adv)
    other = evaluate(Undeclared(0.5), x, y, PGD(steps=5), "linf:0.2", eot=3, seed=1)
    assert other.bits is not None and not torch.equal(first.bits, other.bits)
    still = evaluate(Undeclared(0), x, y, PGD(steps=5), "linf:0.2")
    assert still.flags == () and still.bits is None


def test_a_random_model_with_a_second_source_is_flagged() -> None:
    class TwoFaced(Slipping):
        def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
            return super().forward(x, draws) + torch.randn(len(x), 2)

    class Denying(Slipping):
        stochastic = False

    x, y = halves()
    before = torch.get_rng_state()
    for model in (TwoFaced(), Denying()):
        verdict = evaluate(model, x, y, Null(steps=2), "linf:0.1", eot=2)
        assert "undeclared_randomness" in verdict.flags and verdict.bits is not None
    assert torch.equal(before, torch.get_rng_state())
    assert evaluate(Slipping(), x, y, Null(steps=2), "linf:0.1", eot=2).flags == ("no_gradient:200",)


CLASSES, SHAPE, SPREAD = 3, (1, 4, 4), 3.0


class RandomLinear(Defended):
    """Linear, with weights redrawn for every image and draw around their mean."""

    stochastic = True
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("mean", torch.randn(CLASSES, *SHAPE, generator=generator))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        weight = self.mean if draws is None else self.mean + SPREAD * draws.normal(CLASSES, *SHAPE).to(x)
        return ((x - 0.5)[:, None] * weight).flatten(2).sum(2)


def averaged(eot: int, sign: int = 1) -> tuple[Tensor, Tensor]:
    """(gradients by eot draws, gradients of the mean model), each (N, D), of the margin towards the next class."""
    model, generator = RandomLinear(), torch.Generator().manual_seed(4)
    x, y = torch.rand(8, *SHAPE, generator=generator), torch.arange(8) % CLASSES
    target = (y + 1) % CLASSES

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        return sign * losses.margin_to(logits, label, target)

    threat = ThreatModel.parse("linf:0.1")
    oracle = Oracle(model, x, y, threat, Access.GRADIENTS, Draws(0, torch.arange(8)), eot=eot)
    value, grad, logits = oracle.grad(x, y, loss)
    assert torch.allclose(value, loss(logits, y), atol=1e-4)  # both are means over the same draws
    expected: Tensor = model.mean[target] - model.mean[y]
    return grad.flatten(1), expected.flatten(1)


def converges(sign: int) -> bool:
    errors = [(grad - mean).norm() / mean.norm() for grad, mean in (averaged(eot, sign) for eot in (6, 600))]
    return bool(errors[1] < 0.2 and 4 < errors[0] / errors[1] < 25)  # 100 times the draws: about 10 times nearer


def test_the_averaged_gradient_converges_to_the_mean_models() -> None:
    assert converges(sign=1)
    assert not converges(sign=-1)


def test_pgd_follows_the_expectation_and_a_twin_of_the_wrong_sign_does_not() -> None:
    @dataclass(frozen=True)
    class Backwards(PGD):
        def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
            class Flipped(ThreatModel):
                def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
                    return super().steepest(-grad, x_adv, x, sparsity)

            return super().__call__(oracle, x, y, Flipped(threat.norm, threat.eps), draws)

    model, generator = RandomLinear(), torch.Generator().manual_seed(5)
    x = torch.rand(60, *SHAPE, generator=generator)
    y = model(x).argmax(1)
    data = Tensors(x, y, torch.arange(60))
    attack = PGD(steps=10, loss="margin")
    right, wrong = (
        Judge(eot=30)(model, data, each, ThreatModel.parse("linf:0.2"))
        for each in (attack, Backwards(**asdict(attack)))
    )
    assert right.robust_accuracy < wrong.robust_accuracy - 0.1
    assert right.robust_accuracy < right.clean_accuracy - 0.1
