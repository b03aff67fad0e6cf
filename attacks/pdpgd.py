"""Primal-dual proximal gradient descent: L1 shrinks beside the margin, the weight between them follows success."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.sigma_zero import largest_is_one
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

LAST_STEP, LAST_DUAL = 0.01, 0.1  # of the first
MEMORY = (0.9, 0.999)  # of Adam's means of the gradient and of its square
KEPT = 0.9  # of the weights from step to step
MOST = -math.log(1e-6)  # the largest logarithm of the ratio of the weights, either way
SHRINKS = 5  # times as far as the steepest coordinate a flat one may be shrunk: as many inner steps are published
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class PDPGD(IterativeAttack):
    """Matyasko and Chau 2021, algorithm 2 for L1, from the clean image.

    Minimises ||x_adv - x||_1 + w log(1 + exp(-margin)), where the logarithm of w goes up by dual_step after a failure
    and down after a success. The second term is followed by Adam, whose steps fall by the same factor each time, from
    step_size to a hundredth of it; the first is shrunk in Adam's metric, in the paper by five inner steps and here by
    what they come to: coordinates that the margin hardly depends on shrink at most five times as far as the steepest.
    With nearly all weight on the margin it begins with a change of all pixels that is far too large, and has left what
    masks the gradients near the clean image; then it shrinks. The margin counts in units of the clean one and its
    gradient is brought to a largest entry of 1, so that logits may have any size. Beyond the paper, the share `polish`
    of the steps goes to FMN from the nearest success: 0.4 finds nearer images for the same passes. Per image that
    stays robust: `steps` forwards and backwards.

    steps: how many, at least 1. step_size: of Adam at first, above 0, where white is 1. ratio: the weight of L1 beside
    the margin's at first, in (0, 1]. dual_step: by how much the logarithm of their ratio moves at first, above 0; in
    the end a tenth. polish: the share of the steps that FMN has in the end, in [0, 1); 0 as published.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "smallest L1 perturbation, by shrinking beside a margin whose weight follows success"
    paper: ClassVar[str] = "Matyasko and Chau 2021, arXiv:2106.01538"

    steps: int = 500
    step_size: float = 0.1
    ratio: float = 0.01
    dual_step: float = 0.1
    polish: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.step_size <= 0:
            raise ConfigError(f"step_size is {self.step_size}: the size of Adam's first steps, above 0")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"ratio is {self.ratio}: the weight of L1 beside the margin's at first, in (0, 1]")
        if self.dual_step <= 0:
            raise ConfigError(f"dual_step is {self.dual_step}: how fast the weights follow success, above 0")
        if not 0 <= self.polish < 1:
            raise ConfigError(f"polish is {self.polish}: the share of the steps that FMN has in the end, in [0, 1)")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        log_ratio = x.new_full((len(x), 1, 1, 1), -math.log(self.ratio))
        return FMN().init(oracle, x, y, threat, draws, restart) | {
            "nearest": x,
            "mean": torch.zeros_like(x),
            "square": torch.zeros_like(x),
            "log_ratio": log_ratio,
            "weight": log_ratio.sigmoid(),
            "clean": torch.ones_like(log_ratio),
        }

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        polished = int(self.polish * self.steps)
        shrunk = self.steps - polished
        if i < shrunk:
            return self._shrunk(state, oracle, x, y, threat, i, shrunk)
        if i == shrunk:
            found = (state["smallest"] < math.inf).view(-1, 1, 1, 1)
            x_adv = torch.where(found, state["nearest"], state["x_adv"])
            state = state | {"x_adv": x_adv, "radius": state["smallest"]}
        return state | FMN(steps=polished).step(state, oracle, x, y, threat, draws, i - shrunk)

    def _shrunk(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int, steps: int
    ) -> State:
        """Step i of so many: down the margin's term, back towards x, and the weights moved."""
        done = i / steps
        rate = self.step_size * LAST_STEP**done
        dual = self.dual_step * (1 + (LAST_DUAL - 1) * done)
        x_adv = state["x_adv"]
        margin, rise, _ = oracle.grad(x_adv, y, losses.named("margin", targeted=oracle.targeted))
        size, succeeds = threat.distance(x_adv, x), margin >= oracle.near_tie
        nearer = succeeds & (size < state["smallest"])
        margin, up = margin.view(-1, 1, 1, 1), torch.where(succeeds, -1, 1).to(x).view(-1, 1, 1, 1)
        clean = margin.abs() if i == 0 else state["clean"]
        slope = -largest_is_one(rise) * (-margin / clean.clamp_min(TINY)).sigmoid()
        mean = slope.lerp(state["mean"], MEMORY[0])
        square = slope.square().lerp(state["square"], MEMORY[1])
        metric = (square / (1 - MEMORY[1] ** (i + 1))).sqrt() + 1e-8
        moved = (x_adv - rate * mean / (1 - MEMORY[0] ** (i + 1)) / metric).clamp(0, 1)
        steepest = metric.amax((1, 2, 3), keepdim=True)
        shrink = rate / steepest * (1 / state["weight"] - 1) * (steepest / metric).clamp_max(SHRINKS)
        log_ratio = (state["log_ratio"] + dual * up).clamp(-MOST, MOST)
        return state | {
            "x_adv": x + (moved - x).sign() * ((moved - x).abs() - shrink).relu(),
            "nearest": torch.where(nearer.view(-1, 1, 1, 1), x_adv, state["nearest"]),
            "smallest": torch.where(nearer, size, state["smallest"]),
            "mean": mean,
            "square": square,
            "log_ratio": log_ratio,
            "weight": log_ratio.sigmoid().lerp(state["weight"], KEPT),
            "clean": clean,
        }

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps
