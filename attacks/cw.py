"""Carlini and Wagner's L2 attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._penalty import PenaltyAttack
from robustbench_local.core.attack import State
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm

MOMENTS, TINY = (0.9, 0.999), 1e-8  # Adam's defaults (Kingma and Ba 2015)
INSIDE = 0.999999  # how much of the box is used, so that its edges have a finite w


@dataclass(frozen=True)
class CW(PenaltyAttack):
    """Minimise ||x_adv - x||² + c * max(0, confidence - margin) over w by Adam, where x_adv = (tanh(w) + 1) / 2.

    Carlini and Wagner 2017, section 6.A, with f_6 on the logits. c counts over the second term's value at the clean
    image: it is the squared distance that costs as much as not to move at all, whatever logits are multiplied by. The
    paper's c is this one over confidence - margin of the clean image, often about 10; its first is 0.001, the other
    defaults are the paper's. Per image that never falls: steps * searches forwards and backwards.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})
    version: ClassVar[int] = 4  # c counts over the clean image's margin
    summary: ClassVar[str] = "smallest L2 perturbation, by Adam and a search for c"
    paper: ClassVar[str] = "Carlini and Wagner 2017, arXiv:1608.04644"

    constant: float = 0.1

    def begin(self, x: Tensor) -> State:
        w = torch.atanh(INSIDE * (2 * x - 1))
        return {"w": w, "mean": torch.zeros_like(w), "square": torch.zeros_like(w)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, c: Tensor, goal: Tensor, i: int
    ) -> tuple[State, Tensor, Tensor]:
        x_adv = torch.sigmoid(2 * state["w"])  # = (tanh(w) + 1) / 2
        margin, slope, _ = oracle.grad(x_adv, y, self.margin(oracle, goal))
        unit = state["unit"] if i else self.unit(self.confidence - margin)
        c = c / unit
        objective = self.size(x_adv, x) + c.flatten() * (goal - margin)
        slope = (2 * (x_adv - x) - c * slope) * 2 * x_adv * (1 - x_adv)
        mean = state["mean"].lerp(slope, 1 - MOMENTS[0])
        square = state["square"].lerp(slope.square(), 1 - MOMENTS[1])
        rate = self.step_size / (1 - MOMENTS[0] ** (i + 1))
        w = state["w"] - rate * mean / ((square / (1 - MOMENTS[1] ** (i + 1))).sqrt() + TINY)
        return {"x_adv": x_adv, "w": w, "mean": mean, "square": square, "unit": unit}, objective, margin

    def unit(self, left: Tensor) -> Tensor:
        """(N, 1, 1, 1): what the clean image's margin has left to confidence, what c counts in."""
        return torch.where(left > 0, left, 1).view(-1, 1, 1, 1)

    def size(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).square().sum(1)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps * self.searches, self.steps * self.searches
