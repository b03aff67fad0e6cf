"""SPSA: simultaneous perturbation, a gradient from scores alone, followed by Adam."""

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
from robustbench_local.core.threat import Norm, ThreatModel

BETA, GAMMA, TINY = 0.9, 0.999, 1e-8  # Adam's (Kingma and Ba 2015)


@dataclass(frozen=True)
class SPSA(IterativeAttack):
    """Adam on gradients estimated along random signs (Uesato et al. 2018, Algorithm 1), projected after every step.

    samples: images per gradient, in pairs at +-delta along a random sign per coordinate. The published strength is 100
    steps of 8,192 samples, delta 0.01, learning_rate 0.01, on the margin.
    Cost: steps * samples forwards, no backwards.

    steps: how many, at least 1. delta: how far from the image gradients are estimated, above 0, where white is 1.
    learning_rate: of Adam, above 0, where white is 1. loss: what is climbed, ce, margin, probability_margin or dlr.
    """

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    summary: ClassVar[str] = "Adam on finite differences along random signs, by scores alone"
    paper: ClassVar[str] = "Uesato et al. 2018, arXiv:1802.05666"

    steps: int = 100
    samples: int = 128
    delta: float = 0.01
    learning_rate: float = 0.01
    loss: str = "margin"

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.samples < 2 or self.samples % 2:
            raise ConfigError(f"samples is {self.samples}: an even number, since they come in pairs")
        if self.delta <= 0 or self.learning_rate <= 0:
            raise ConfigError(
                f"delta is {self.delta}, learning_rate {self.learning_rate}: both must be above 0, in pixels in [0, 1]"
            )
        losses.named(self.loss)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x, "mean": torch.zeros_like(x), "square": torch.zeros_like(x)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        loss = losses.named(self.loss, targeted=oracle.targeted)

        def signs(count: int) -> Tensor:
            return 2.0 * draws.integers(2, count, *x.shape[1:]) - 1

        grad = slope(oracle, state["x_adv"], y, loss, signs, self.samples // 2, self.delta)
        mean = BETA * state["mean"] + (1 - BETA) * grad
        square = GAMMA * state["square"] + (1 - GAMMA) * grad**2
        rate = (square / (1 - GAMMA ** (i + 1))).sqrt() + TINY * oracle.unit.view(-1, 1, 1, 1)
        moved = state["x_adv"] + self.learning_rate * mean / (1 - BETA ** (i + 1)) / rate
        return {"x_adv": threat.project(moved, x), "mean": mean, "square": square}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps * self.samples, 0
