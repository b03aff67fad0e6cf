"""The momentum iterative method: gradients add up, so that the path does not follow every bend of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel, parse_number


@dataclass(frozen=True)
class MIM(IterativeAttack):
    """MI-FGSM (Dong et al. 2018, equations 6 and 7), from the clean image; published: 10 steps, momentum 1.

        g <- momentum g + grad / mean |grad|,  x <- project(x + step_size * steepest(g))

    The mean, not the sum of the paper's equation, is what its authors ran; it matters only to nesterov: the gradient is
    then taken where the momentum leads to, x + step_size momentum g (NI-FGSM, Lin et al. 2020, equation 6; L∞ only).
    step_size: by default eps / steps. Costs `steps` forwards and backwards.

    steps: how many, at least 1. momentum: the weight of earlier gradients, at least 0. nesterov: whether the gradient
    is taken ahead. loss: what is climbed, ce, margin, probability_margin or dlr.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    summary: ClassVar[str] = "iterated FGSM with momentum"
    paper: ClassVar[str] = "Dong et al. 2018, arXiv:1710.06081"

    steps: int = 10
    step_size: str | float | None = None
    momentum: float = 1.0
    nesterov: bool = False
    loss: str = "ce"

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.step_size is not None and parse_number(self.step_size) <= 0:
            raise ConfigError(f"step_size is {self.step_size}: it must be above 0, in units of pixels in [0, 1]")
        if self.momentum < 0:
            raise ConfigError(f"momentum is {self.momentum}: it must be at least 0 (0 forgets, as BIM does)")
        losses.named(self.loss)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        if self.nesterov and threat.norm is not Norm.LINF:
            raise ConfigError(f"nesterov is a method for linf, and the threat is {threat}: leave it out")
        return {"x_adv": x, "velocity": torch.zeros_like(x)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        size = threat.eps / self.steps if self.step_size is None else parse_number(self.step_size)
        x_adv, velocity = state["x_adv"], self.momentum * state["velocity"]
        _, grad, _ = oracle.grad(x_adv + size * velocity if self.nesterov else x_adv, y, self.raised(oracle))
        grad = self.smoothed(grad)
        velocity = velocity + grad / grad.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, 1, 1, 1)
        x_adv = threat.climb(x_adv, velocity, x, size)
        return {"x_adv": x_adv, "velocity": velocity}

    def raised(self, oracle: Oracle) -> losses.Loss:
        return losses.named(self.loss, targeted=oracle.targeted)

    def smoothed(self, grad: Tensor) -> Tensor:
        """The gradient as it enters the momentum."""
        return grad

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps
