"""The images an attack may make, as the bounds see them: a ball around each clean image, in the box of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.rounding import SLACK
from robustbench_local.bounds.step import Box, least, product
from robustbench_local.core.errors import BoundsError
from robustbench_local.core.threat import TOLERANCE, Norm, ThreatModel

NORMS = (Norm.LINF, Norm.L2, Norm.L1, Norm.NONE)


@dataclass(frozen=True)
class Ball:
    """Images x' with ||x' - x|| <= eps, pixels in [0, 1], around x (N, C, H, W) float64.

    Both ball and box are wider than the threat model says by twice what a verdict tolerates (threat.TOLERANCE; twice,
    for a distance is measured in float32).
    """

    x: Tensor
    norm: Norm
    eps: float

    @classmethod
    def around(cls, x: Tensor, threat: ThreatModel) -> Ball:
        """BoundsError for a norm that no bound is known of."""
        if threat.norm not in NORMS:
            known = ", ".join(NORMS)
            raise BoundsError(f"no bound is known of {threat}: its ball is not convex; known are {known}")
        eps = math.inf if threat.norm is Norm.NONE else threat.eps + 2 * TOLERANCE * max(1.0, threat.eps)
        return cls(x.detach().double(), threat.norm, eps)

    def of(self, images: Tensor) -> Ball:
        """Around these of its images, by their numbers."""
        return Ball(self.x[images], self.norm, self.eps)

    @property
    def box(self) -> Box:
        """The smallest box around ball and pixel range."""
        return Box((self.x - self.eps).clamp(min=-2 * TOLERANCE), (self.x + self.eps).clamp(max=1 + 2 * TOLERANCE))

    def minimum(self, coefficients: Tensor) -> Tensor:
        """(B, R, C, H, W) -> (N, R): a lower bound of their product with any image of the ball.

        L-infinity and L1: the minimum over ball and box, exact. L2: the higher of two minima, over the ball alone and
        over the box around ball and pixel range.
        """
        if self.norm is Norm.L1:
            return self._alone(coefficients, self._steepest(coefficients))
        within = least(coefficients, self.box)
        if self.norm is Norm.L2:
            length = coefficients.flatten(2).square().sum(2).sqrt()
            return within.maximum(self._alone(coefficients, self.eps * length))
        return within

    def _alone(self, coefficients: Tensor, falls: Tensor) -> Tensor:
        """The product with the clean image, less what a change takes off."""
        rounding = SLACK * (product(coefficients.abs(), torch.ones_like(self.x[:1])) + falls)
        return product(coefficients, self.x) - falls - rounding

    def _steepest(self, coefficients: Tensor) -> Tensor:
        """(N, R): the most that eps of L1 takes off, spent on the largest coefficients as far as the box has room."""
        low, high = self.box
        flat = coefficients.flatten(2).expand(len(self.x), -1, -1)
        room = torch.where(flat > 0, (self.x - low).flatten(1).unsqueeze(1), (high - self.x).flatten(1).unsqueeze(1))
        size, order = flat.abs().sort(2, descending=True)
        room = room.gather(2, order)
        before = room.cumsum(2) - room
        return (size * room.minimum((self.eps - before).clamp(min=0))).sum(2)
