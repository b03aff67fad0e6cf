"""Fast minimum-norm attack: a ball whose radius follows the distance to the boundary."""

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

DUAL = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf}
LAST_GAMMA = 0.001
TINY = torch.finfo(torch.float32).tiny
LAST_STEP = 0.01  # of the first


@dataclass(frozen=True)
class FMN(IterativeAttack):
    """Pintor et al. 2021, algorithm 1, from the clean image; after another attack of a suite, from its nearest success.

    Until a first success the radius is the distance to the linearised boundary; from then on it is times 1 - gamma
    after a success, and never above the smallest one, and times 1 + gamma after a failure (L0: by one pixel at least).
    A step along the gradient of the margin, of L2 length step_size, is projected onto that ball. gamma and step_size
    are annealed to 0.001 and to a hundredth. L0 counts pixel positions here. Per image that stays robust: `steps`
    forwards and backwards.

    steps: how many, at least 1. step_size: the L2 length of the first step, above 0, where white is 1. gamma: the
    radius's change per step, in [0.001, 1).
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0, Norm.L1, Norm.L2, Norm.LINF})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "smallest perturbation, by a ball that follows the boundary"
    paper: ClassVar[str] = "Pintor et al. 2021, arXiv:2102.12827"

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.step_size <= 0:
            raise ConfigError(f"step_size is {self.step_size}: an L2 length above 0, in units of pixels in [0, 1]")
        if not LAST_GAMMA <= self.gamma < 1:
            raise ConfigError(f"gamma is {self.gamma}: the radius's change per step, in [{LAST_GAMMA}, 1)")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        radius = x.new_full((len(x),), 1.0 if threat.norm is Norm.L0 else math.inf)
        return {"x_adv": oracle.best(x), "radius": radius, "smallest": torch.full_like(radius, math.inf)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        annealed = (1 + math.cos(math.pi * i / self.steps)) / 2
        gamma = LAST_GAMMA + (self.gamma - LAST_GAMMA) * annealed
        rate = self.step_size * (LAST_STEP + (1 - LAST_STEP) * annealed)
        x_adv, radius = state["x_adv"], state["radius"]
        margin, grad, _ = oracle.grad(x_adv, y, losses.named("margin", targeted=oracle.targeted))
        grad = torch.where(torch.where(grad > 0, x_adv < 1, x_adv > 0), grad, 0)  # the box holds the others
        fails, size = margin < oracle.near_tie, threat.distance(x_adv, x)
        smallest = torch.where(fails, state["smallest"], torch.minimum(state["smallest"], size))
        if threat.norm is Norm.L0:
            larger = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
            smaller = torch.minimum(radius - 1, (radius * (1 - gamma)).floor())
        else:
            slope = grad.flatten(1).norm(p=DUAL[threat.norm], dim=1).clamp_min(TINY)
            first = (size + margin.abs() / slope) * (1 + LAST_GAMMA)  # a boundary just reached is not crossed
            larger = torch.where(smallest < math.inf, radius * (1 + gamma), first)
            smaller = radius * (1 - gamma)
        furthest = threat.distance((x < 0.5).to(x), x)
        radius = torch.where(fails, larger, torch.minimum(smaller, smallest)).clamp_min(0).minimum(furthest)
        step = rate * grad / grad.flatten(1).norm(dim=1).clamp_min(TINY).view(-1, 1, 1, 1)
        delta = _project(x_adv - x + step, radius.view(-1, 1, 1, 1), threat.norm)
        return {"x_adv": (x + delta).clamp(0, 1), "radius": radius, "smallest": smallest}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps


def _project(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """The nearest perturbation (N, C, H, W) in a ball of its own radius (N, 1, 1, 1) per sample."""
    match norm:
        case Norm.LINF:
            return torch.minimum(torch.maximum(delta, -radius), radius)
        case Norm.L2:
            length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
            shorter: Tensor = delta * (radius / length).clamp_max(1)
            return shorter
        case Norm.L1:
            size = delta.abs()
            return delta.sign() * (size - _shift(size.flatten(1), radius.flatten(1)).view_as(radius)).relu()
        case _:
            rank: Tensor = delta.square().sum(1).flatten(1).argsort(1, descending=True).argsort(1)
            return delta * (rank.view(-1, 1, *delta.shape[2:]) < radius)


def _shift(size: Tensor, radius: Tensor) -> Tensor:
    """(N, 1): what all sizes (N, D) must give up for their sum to be at most the radius (Duchi et al. 2008)."""
    ordered = size.sort(1, descending=True).values
    shift = (ordered.cumsum(1) - radius) / torch.arange(1, size.shape[1] + 1, device=size.device)
    last = (ordered > shift).sum(1, keepdim=True).clamp_min(1) - 1
    return shift.gather(1, last).clamp_min(0)
