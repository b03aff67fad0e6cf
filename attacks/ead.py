"""Elastic-net attack: CW with a share of L1, by iterative shrinking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._penalty import PenaltyAttack
from robustbench_local.core.attack import State
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, length

SLOPE = 10.0  # of a margin, per unit of L2, where c counts as it is
RULES = ("en", "l1")


@dataclass(frozen=True)
class EAD(PenaltyAttack):
    """Minimise beta ||delta||_1 + ||delta||² + c * max(0, confidence - margin) by FISTA (Chen et al. 2018, section 4).

    A gradient step without the L1 term, of size step_size * sqrt(1 - i / steps), is shrunk towards the clean image by
    beta, and what comes out is extrapolated by i / (i + 3) of its last change. rule: of all successes the one smallest
    in the elastic net ("en") or in L1 ("l1") is kept. Per image that stays robust, steps * searches times: 2 forwards
    and 1 backward.

    beta: the weight of the L1 term, at least 0.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})
    version: ClassVar[int] = 4  # c follows the slope, whatever it is
    summary: ClassVar[str] = "smallest L1 or elastic-net perturbation, by shrinking and a search for c"
    patience: ClassVar[float] = 0.2  # its momentum makes the objective swing
    paper: ClassVar[str] = "Chen et al. 2018, arXiv:1709.04114"

    steps: int = 1000
    beta: float = 1e-3
    rule: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ConfigError(f"beta is {self.beta}: the weight of the L1 term, at least 0")
        if self.rule not in RULES:
            raise ConfigError(f'rule "{self.rule}" is unknown: one of {", ".join(RULES)}')

    def begin(self, x: Tensor) -> State:
        return {"x_adv": x, "ahead": x}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, c: Tensor, goal: Tensor, i: int
    ) -> tuple[State, Tensor, Tensor]:
        ahead, margin = state["ahead"], self.margin(oracle, goal)
        value, slope, _ = oracle.grad(ahead, y, margin)
        unit = state["unit"] if i else self.unit(slope)
        c = c / unit
        objective = self._elastic(ahead, x) + c.flatten() * (goal - value)
        rate = self.step_size * (1 - i / self.steps) ** 0.5
        delta = ahead - x - rate * (2 * (ahead - x) - c * slope)
        x_adv = (x + delta.sign() * (delta.abs() - self.beta).relu()).clamp(0, 1)
        ahead = x_adv + i / (i + 3) * (x_adv - state["x_adv"])
        return {"x_adv": x_adv, "ahead": ahead, "unit": unit}, objective, margin(oracle.logits(x_adv), y)

    def unit(self, slope: Tensor) -> Tensor:
        """(N, 1, 1, 1): the margin's slope at the clean image over a usual one, what c counts in."""
        size = length(slope.flatten(1))
        return torch.where(size > 0, size / SLOPE, 1).view(-1, 1, 1, 1)

    def size(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self._elastic(x_adv, x) if self.rule == "en" else (x_adv - x).flatten(1).abs().sum(1)

    def _elastic(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = (x_adv - x).flatten(1)
        return self.beta * delta.abs().sum(1) + delta.square().sum(1)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 2 * self.steps * self.searches, self.steps * self.searches
