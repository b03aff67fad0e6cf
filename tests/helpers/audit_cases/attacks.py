"""Attacks that lie, and one that somebody wrote well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, call, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from tests.helpers.audit_cases.case import Case, Liar, zoo


class Uncertain(Defended):
    """Declared noise on the logits, so much that one draw says little."""

    stochastic = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = call(self.net, x, None)
        return logits + 4 * draws_for(x, draws).normal(logits.shape[1])


@dataclass(frozen=True)
class Own(Attack):
    """Written by somebody who uses the oracle as a model, and not the loop that the house has."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    steps: int = 20

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = threat.start(x, draws.stream("start"))
        for i in range(self.steps):
            _, grad, _ = oracle.grad(x_adv, y, losses.ce)
            x_adv = self.move(x_adv, grad, x, threat, i)
        return x_adv

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project(x_adv + 2.5 * threat.eps / self.steps * grad.sign(), x)


@dataclass(frozen=True)
class LastIterate(Own):
    """Keeps what it has when the steps are over, though it steps back at the end."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        sign = -1 if i >= self.steps - 3 else 1
        return threat.project(x_adv + sign * threat.eps * grad.sign(), x)


@dataclass(frozen=True)
class WrongSign(Own):
    """Averages gradients over the draws, and goes down."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return super().move(x_adv, -grad, x, threat, i)


@dataclass(frozen=True)
class WrongUnit(Own):
    """Takes eps for grey levels."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        small = ThreatModel(threat.norm, threat.eps / 255)
        return small.project(x + small.eps * grad.sign(), x)


@dataclass(frozen=True)
class TooFar(Own):
    """Takes pixels to span [-1, 1]: steps out of the ball, twice as far as it may."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return ThreatModel(threat.norm, 2 * threat.eps, allow_large=True).project(x + 2 * threat.eps * grad.sign(), x)


@dataclass(frozen=True)
class TooShort(Own):
    """Three steps of a hundredth of eps, from the clean image."""

    steps: int = 3

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project((x if i == 0 else x_adv) + threat.eps / 100 * grad.sign(), x)


@dataclass(frozen=True)
class Mistuned(Own):
    """Its steps suit a ball of 0.15, and shrink as the ball grows beyond."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project((x if i == 0 else x_adv) + (0.02 if threat.eps < 0.2 else 1e-4) * grad.sign(), x)


@dataclass(frozen=True)
class LuckyDraw(Own):
    """Asks about the clean image until a draw comes that errs."""

    access: ClassVar[Access] = Access.SCORES

    steps: int = 60

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for _ in range(self.steps):
            oracle.logits(x)
        return x


def under(attack: Attack, *causes: str, base: str = "adversarial_training") -> Liar:
    return Liar(lambda x, y: Case(zoo(base), attack), causes)


LIARS: dict[str, Liar] = {
    "attack: last iterate only": under(LastIterate(), "nothing found is lost"),
    "attack: wrong sign under EOT": under(WrongSign(), "the attack climbs", base="noise_fusion"),
    "attack: eps in grey levels": under(WrongUnit(), "the budget is used"),
    "attack: twice the budget": under(TooFar(), "the budget is used"),
    "attack: three tiny steps": under(TooShort(), "the budget is used", "as strong as another", base="none"),
    "attack: one lucky draw": Liar(
        lambda x, y: Case(Uncertain(zoo("none")), LuckyDraw()), ("single draws are not counted",)
    ),
}
