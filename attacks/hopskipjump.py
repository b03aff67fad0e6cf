"""HopSkipJump: the gradient at the boundary, estimated from labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._decision import DecisionAttack, bisect, length, succeeds
from robustbench_local.core.attack import State
from robustbench_local.core.blocks import at_once
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

HALVINGS = 20  # of a step, before it is given up
SEARCH = 24  # queries of one, at most, for images up to 3x32x32
CHUNK = 25  # perturbations per query, of large images fewer: bounds memory, the same in any batch


@dataclass(frozen=True)
class HopSkipJump(DecisionAttack):
    """Search the boundary, estimate its normal there, jump, search again (Chen et al. 2020, Algorithm 2).

    At step t the normal is the mean of evaluations * sqrt(t) random directions u, signed by whether x_t + delta u
    succeeds, less the mean sign (equation 16); delta is the distance over d, 0.1 at first. The jump of length
    distance / sqrt(t) along it (L∞: along its sign) is halved until it succeeds. The search on the way back to x ends
    at gamma d^(-3/2) of the distance, in L∞ gamma d^(-2). 64 steps of 100 are the authors'.
    Cost, at most: candidates + 24 + sum over t of (min(evaluations sqrt(t), max_evaluations) + 20 + 24) + 1 forwards,
    no backwards, where 24 is the search of an image of 3,072 numbers in L∞.

    steps: how many jumps, at least 1. evaluations: directions of the first estimate, from 1 to max_evaluations.
    max_evaluations: the most that any estimate takes. gamma: how exact the search of the boundary is, above 0.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})
    summary: ClassVar[str] = "the boundary's normal estimated from labels, then a jump along it"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:1904.02144"

    steps: int = 64
    evaluations: int = 100
    max_evaluations: int = 10_000
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.evaluations <= self.max_evaluations:
            raise ConfigError(f"evaluations is {self.evaluations}: from 1 to max_evaluations, {self.max_evaluations}")
        if self.gamma <= 0:
            raise ConfigError(f"gamma is {self.gamma}: it must be above 0")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        x_adv, found = self.start(oracle, x, y, threat, draws.stream("start"))
        state = {"x_adv": x_adv, "found": found}
        rows = found.nonzero()[:, 0]
        if len(rows):
            precision = self._precision(x, threat.norm)
            x_adv[rows] = bisect(oracle[rows], x[rows], y[rows], x_adv[rows], threat.norm, precision)
        return state

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        rows = state["found"].nonzero()[:, 0]
        if not len(rows):
            return state
        oracle, x, y, draws, x_adv = oracle[rows], x[rows], y[rows], draws[rows], state["x_adv"][rows]
        far = threat.distance(x_adv, x)
        delta = far / x[0].numel() if i else torch.full_like(far, 0.1)
        normal = self._normal(oracle, x_adv, y, threat.norm, delta.clamp_min(1e-6), draws, i)
        jumped = self._jump(oracle, x_adv, y, normal, far / math.sqrt(i + 1))
        x_adv = bisect(oracle, x, y, jumped, threat.norm, self._precision(x, threat.norm))
        return state | {"x_adv": state["x_adv"].index_put((rows,), x_adv)}

    def _normal(
        self, oracle: Oracle, x_adv: Tensor, y: Tensor, norm: Norm, delta: Tensor, draws: Draws, i: int
    ) -> Tensor:
        """The direction, of unit length (L∞: of signs), in which ever more images succeed."""
        size = delta.view(-1, 1, 1, 1, 1)
        signed, plain, total = torch.zeros_like(x_adv), torch.zeros_like(x_adv), x_adv.new_zeros(len(x_adv))
        count, together = self._evaluations(i), at_once(CHUNK, x_adv[0].numel())
        for done in range(0, count, together):
            shape = (min(together, count - done), *x_adv.shape[1:])
            u = 2 * draws.uniform(*shape) - 1 if norm is Norm.LINF else draws.normal(*shape)
            u = u.to(x_adv) / u.flatten(2).norm(dim=2).clamp_min(1e-12).view(*u.shape[:2], 1, 1, 1)
            images = (x_adv[:, None] + size * u).clamp(0, 1)
            u = (images - x_adv[:, None]) / size
            sign = 2.0 * succeeds(oracle, images, y).to(x_adv) - 1
            signed += torch.einsum("np,npchw->nchw", sign, u)
            plain += u.sum(1)
            total += sign.sum(1)
        mean = total / count
        baseline = torch.where(mean.abs() == 1, 0, mean).view(-1, 1, 1, 1)  # all agree: the mean itself is the answer
        normal = signed - baseline * plain
        if norm is Norm.LINF:
            return normal.sign()
        return normal / length(normal)

    def _jump(self, oracle: Oracle, x_adv: Tensor, y: Tensor, normal: Tensor, far: Tensor) -> Tensor:
        """x_adv moved along the normal, half as far each time it does not succeed."""
        jumped, rows = x_adv.clone(), torch.arange(len(x_adv), device=x_adv.device)
        for k in range(HALVINGS):
            size = (far[rows] * 0.5**k).view(-1, 1, 1, 1)
            proposal = (x_adv[rows] + size * normal[rows]).clamp(0, 1)
            success = succeeds(oracle[rows], proposal, y[rows])
            jumped[rows[success]] = proposal[success]
            rows = rows[~success]
            if not len(rows):
                break
        return jumped

    def _evaluations(self, i: int) -> int:
        return min(int(self.evaluations * math.sqrt(i + 1)), self.max_evaluations)

    def _precision(self, x: Tensor, norm: Norm) -> float:
        size = x[0].numel()
        return min(0.5, self.gamma / math.pow(size, 2 if norm is Norm.LINF else 1.5))

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        estimates = sum(self._evaluations(i) for i in range(self.steps))
        return self.candidates + SEARCH + estimates + self.steps * (HALVINGS + SEARCH) + 1, 0
