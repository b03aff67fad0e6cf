"""Sigma-zero: the number of changed pixels, made smooth, goes down by gradients beside the margin."""

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

LAST_STEP = 0.1  # of the first
MEMORY = (0.9, 0.999)  # of Adam's means of the gradient and of its square
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class SigmaZero(IterativeAttack):
    """Cinà et al. 2025, algorithm 1, with Adam, as its authors publish it.

    While an image is no success its margin goes up; at all times the smooth count of changes, the mean over pixels of
    d² / (d² + sigma), goes down. That gradient, its largest entry made 1, is followed by Adam, whose step is annealed
    from step_size to a tenth. Pixels whose change is then within a threshold go back; it is `threshold` at first, and
    moves up by adapt times the step's size after a success and down after a failure. L0 counts pixel positions here: d
    is the length of a pixel's change over its channels, and its largest channel is held against the threshold. The
    margin's gradient is brought to a largest entry of 1 before the count's is added, so that logits may have any size.
    Pixels of equal gradients move together. Per image that stays robust: `steps` forwards and backwards.

    steps: how many, at least 1. step_size: of Adam at first, above 0, where white is 1. sigma: how soft the count is,
    above 0: a change of sqrt(sigma) counts half. threshold: the change that a pixel needs to stay, at first, in [0, 1).
    adapt: by how much of the step's size the threshold moves, at least 0.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "fewest pixels, by a smooth count and a threshold that follows success"
    paper: ClassVar[str] = "Cinà et al. 2025, arXiv:2402.01879"

    steps: int = 1000
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    adapt: float = 0.01

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.step_size <= 0:
            raise ConfigError(f"step_size is {self.step_size}: the size of Adam's first steps, above 0")
        if self.sigma <= 0:
            raise ConfigError(f"sigma is {self.sigma}: how soft the count of pixels is, above 0")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold}: the change that a pixel needs to stay, in [0, 1)")
        if self.adapt < 0:
            raise ConfigError(f"adapt is {self.adapt}: by how much the threshold moves, at least 0")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        threshold = x.new_full((len(x), 1, 1, 1), self.threshold)
        return {"x_adv": x, "threshold": threshold, "mean": torch.zeros_like(x), "square": torch.zeros_like(x)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        annealed = (1 + math.cos(math.pi * i / self.steps)) / 2
        rate = self.step_size * (LAST_STEP + (1 - LAST_STEP) * annealed)
        x_adv = state["x_adv"]
        margin, rise, _ = oracle.grad(x_adv, y, losses.named("margin", targeted=oracle.targeted))
        fails = (margin < oracle.near_tie).view(-1, 1, 1, 1)
        slope = self._slope_of_count(x_adv - x) - torch.where(fails, largest_is_one(rise), 0)
        slope = largest_is_one(slope)
        mean = slope.lerp(state["mean"], MEMORY[0])
        square = slope.square().lerp(state["square"], MEMORY[1])
        unbiased = [value / (1 - memory ** (i + 1)) for value, memory in zip((mean, square), MEMORY, strict=True)]
        moved = (x_adv - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).clamp(0, 1)
        threshold = (state["threshold"] + self.adapt * rate * (1 - 2 * fails.to(x))).clamp(0, 1)
        stays = (moved - x).abs().amax(1, keepdim=True) > threshold
        return {"x_adv": torch.where(stays, moved, x), "threshold": threshold, "mean": mean, "square": square}

    def _slope_of_count(self, delta: Tensor) -> Tensor:
        """The gradient of the mean over pixels of d² / (d² + sigma), like delta (N, C, H, W)."""
        squared = delta.square().sum(1, keepdim=True)
        slope: Tensor = 2 * self.sigma * delta / (squared + self.sigma).square() / squared[0].numel()
        return slope

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps


def largest_is_one(slope: Tensor) -> Tensor:
    """Each sample's slope (N, C, H, W) times what makes its largest entry 1; a flat one as it is.

    An infinite entry is a largest one, and NaN is taken as flat: in Adam's means it would stay for good.
    """
    slope = slope.nan_to_num()
    return slope / slope.abs().amax((1, 2, 3), keepdim=True).clamp_min(TINY)
