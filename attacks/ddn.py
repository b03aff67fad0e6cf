"""Decoupled direction and norm: an L2 walk on a sphere that shrinks after a success and grows after a failure."""

from __future__ import annotations

import math
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
from robustbench_local.core.threat import Norm, ThreatModel

RATES = (1.0, 0.01)  # length of the first and the last step


@dataclass(frozen=True)
class DDN(IterativeAttack):
    """Rony et al. 2019, algorithm 1, without its rounding to 8 bits, which is the judge's.

    A normalised gradient step of cross-entropy, of length annealed from 1 to 0.01, gives the direction; the norm is
    `start` at first, and times 1 - gamma after a success, 1 + gamma after a failure. Logits are brought to a usual
    spread first: of larger ones the softmax would be saturated, of smaller ones it would see no class before others.
    Per image that stays robust: `steps` forwards and backwards.

    steps: how many, at least 1. gamma: the norm's change per step, in (0, 1). start: the first norm, above 0, where
    white is 1.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})
    minimises: ClassVar[bool] = True
    version: ClassVar[int] = 3  # logits of any size have the same softmax
    summary: ClassVar[str] = "smallest L2 perturbation, direction and norm apart"
    paper: ClassVar[str] = "Rony et al. 2019, arXiv:1811.09600"

    steps: int = 100
    gamma: float = 0.05
    start: float = 1.0

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if not 0 < self.gamma < 1:
            raise ConfigError(f"gamma is {self.gamma}: the norm's change per step, in (0, 1)")
        if self.start <= 0:
            raise ConfigError(f"start is {self.start}: the first norm, above 0, in units of pixels in [0, 1]")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x, "norm": x.new_full((len(x),), self.start)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        x_adv = state["x_adv"]
        _, grad, logits = oracle.grad(x_adv, y, losses.spread_alike(losses.named("ce", targeted=oracle.targeted)))
        fails = losses.named("margin", targeted=oracle.targeted)(logits, y) < oracle.near_tie
        norm = torch.minimum(state["norm"] * (1 + self.gamma * (2 * fails - 1)), _length(torch.maximum(x, 1 - x)))
        flat = (grad == 0).flatten(1).all(1).view(-1, 1, 1, 1)  # a saturated softmax: any way is as good
        grad = torch.where(flat, draws.normal(*x.shape[1:]).to(x), grad)
        grad = grad / grad.abs().amax((1, 2, 3), keepdim=True)  # a small one squared may be 0
        rate = RATES[1] + (RATES[0] - RATES[1]) * (1 + math.cos(math.pi * i / self.steps)) / 2
        delta = x_adv - x + rate * grad / _length(grad).view(-1, 1, 1, 1)
        delta = delta * (norm / _length(delta).clamp_min(torch.finfo(x.dtype).tiny)).view(-1, 1, 1, 1)
        return {"x_adv": (x + delta).clamp(0, 1), "norm": norm}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length
