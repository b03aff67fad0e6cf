"""Projected gradient descent, the work-horse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel, parse_number

MULTI_TARGETED = "multi_targeted"


@dataclass(frozen=True)
class PGD(IterativeAttack):
    """Repeat: x <- project(x + step_size * steepest(grad)) (Madry et al. 2018, section 2.1).

    step_size: length of a step in the norm, by default 2.5 eps / steps. loss: ce, margin, probability_margin, dlr, or
    multi_targeted, which spends one restart on the margin towards every other class (Gowal et al. 2019). sparsity: the
    share of coordinates an L1 step moves (Tramèr and Boneh 2019).

    steps: how many each restart takes, at least 1. restarts: how many rounds begin anew, at least 1. random_start:
    whether a round begins anywhere in the ball instead of at the clean image.

    Cost: with R = restarts rounds, K - 1 times as many where multi_targeted, R * (steps + 1) - 1 forwards and R * steps
    backwards; fewer for an image that settles where further steps change nothing.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    memoryless: ClassVar[bool] = True
    reach: ClassVar[float] = 2.5  # how far all steps together could go, in eps
    summary: ClassVar[str] = "projected gradient ascent from random starts"
    paper: ClassVar[str] = "Madry et al. 2018, arXiv:1706.06083"

    steps: int = 40
    step_size: str | float | None = None
    restarts: int = 1
    random_start: bool = True
    loss: str = "ce"
    sparsity: float = 0.01

    def __post_init__(self) -> None:
        check_counts(self, "steps", "restarts")
        if self.step_size is not None and parse_number(self.step_size) <= 0:
            raise ConfigError(f"step_size is {self.step_size}: it must be above 0, in units of pixels in [0, 1]")
        if not 0 < self.sparsity <= 1:
            raise ConfigError(f"sparsity is {self.sparsity}: a share of coordinates in (0, 1]")
        if self.loss != MULTI_TARGETED:
            losses.named(self.loss)

    def rounds(self, oracle: Oracle) -> int:
        return self.restarts * (oracle.classes - 1 if self.loss == MULTI_TARGETED else 1)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        x_adv = threat.start(x, draws.stream("start")) if self.random_start else x
        if self.loss != MULTI_TARGETED:
            return {"x_adv": x_adv}
        if oracle.targeted:
            raise ConfigError("multi_targeted is an untargeted attack: with targets use loss=margin")
        return {"x_adv": x_adv, "target": (y + 1 + restart % (oracle.classes - 1)) % oracle.classes}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        if self.loss == MULTI_TARGETED:
            loss: losses.Loss = partial(losses.margin_to, target=state["target"])
        else:
            loss = losses.named(self.loss, targeted=oracle.targeted)
        size = self.reach * threat.eps / self.steps if self.step_size is None else parse_number(self.step_size)
        _, grad, _ = oracle.grad(state["x_adv"], y, loss)
        return state | {"x_adv": threat.climb(state["x_adv"], grad, x, size, self.sparsity)}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        rounds = self.restarts * (classes - 1 if self.loss == MULTI_TARGETED else 1)
        return rounds * (self.steps + 1) - 1, rounds * self.steps
