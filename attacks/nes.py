"""NES: natural evolution strategies, a gradient from scores alone, followed as PGD follows the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._estimated import slope
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel, parse_number


@dataclass(frozen=True)
class NES(IterativeAttack):
    """Momentum PGD on gradients estimated along Gaussians (Ilyas et al. 2018, section 2.2 and Algorithm 1).

    samples: images per gradient, in antithetic pairs at +-sigma along a standard normal. sigma 0.001, 50 samples and
    momentum 0.9 are the authors'. step_size: length of a step in the norm, by default eps / 10. The loss is the margin,
    since in float32 the cross-entropy of a sure network does not change within sigma.
    Cost: steps * samples forwards, no backwards.

    steps: how many, at least 1. sigma: how far from the image gradients are estimated, above 0, where white is 1.
    momentum: the weight of earlier gradients, in [0, 1). loss: what is climbed, ce, margin, probability_margin or dlr.
    """

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})
    summary: ClassVar[str] = "PGD on finite differences along Gaussians, by scores alone"
    paper: ClassVar[str] = "Ilyas et al. 2018, arXiv:1804.08598"

    steps: int = 100
    samples: int = 50
    sigma: float = 0.001
    momentum: float = 0.9
    step_size: str | float | None = None
    loss: str = "margin"

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.samples < 2 or self.samples % 2:
            raise ConfigError(f"samples is {self.samples}: an even number, since they come in pairs")
        if self.sigma <= 0:
            raise ConfigError(f"sigma is {self.sigma}: it must be above 0, in units of pixels in [0, 1]")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}: in [0, 1)")
        if self.step_size is not None and parse_number(self.step_size) <= 0:
            raise ConfigError(f"step_size is {self.step_size}: it must be above 0, in units of pixels in [0, 1]")
        losses.named(self.loss)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x, "grad": torch.zeros_like(x)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        loss = losses.named(self.loss, targeted=oracle.targeted)
        size = threat.eps / 10 if self.step_size is None else parse_number(self.step_size)

        def gaussians(count: int) -> Tensor:
            return draws.normal(count, *x.shape[1:])

        new = slope(oracle, state["x_adv"], y, loss, gaussians, self.samples // 2, self.sigma)
        grad = self.momentum * state["grad"] + (1 - self.momentum) * new
        return {"x_adv": threat.climb(state["x_adv"], grad, x, size), "grad": grad}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps * self.samples, 0
