"""What attacks that see nothing but labels share: a first adversarial image, and the way from there to the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class DecisionAttack(IterativeAttack):
    """candidates: mosaics of noise tried, until one is adversarial, to start from. images: start instead from the
    nearest that is, of so many images of the attacker's own, whose labels are asked once; targeted attacks need some.

    steps: steps along the boundary, at least 1.
    """

    access: ClassVar[Access] = Access.LABELS
    minimises: ClassVar[bool] = True
    pool: ClassVar[tuple[Tensor, Tensor] | None] = None  # the attacker's images and what the model calls them

    candidates: int = 100
    images: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "steps", "candidates")
        if self.images < 0:
            raise ConfigError(f"images is {self.images}: it must be at least 0")

    @property
    def own_images(self) -> int:
        return self.images

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> DecisionAttack:
        return self.knowing(pool=(x, oracle.labels(x))) if self.images else self

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.images, 0

    def start(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> tuple[Tensor, Tensor]:
        """(adversarial images (N, C, H, W), whether one was found (N,)); x where none was."""
        if self.pool is not None:
            return nearest(*self.pool, x, y, targeted=oracle.targeted)
        if oracle.targeted:
            raise ConfigError(
                "targets need images of the attacker's own to start from: images=100 (noise reaches no given class)"
            )
        first, found = x.clone(), torch.zeros_like(y, dtype=torch.bool)
        for i in range(self.candidates):
            rows = (~found).nonzero()[:, 0]
            if not len(rows):
                break
            proposal = mosaic(x[rows], draws[rows].stream(i), finest=i == 0)
            success = succeeds(oracle[rows], proposal, y[rows])
            first[rows[success]], found[rows[success]] = proposal[success], True
        return first, found


def succeeds(oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
    """(N, *P) bool for images (N, *P, C, H, W): another class than y, or y itself where targeted; not where frozen."""
    labels = oracle.labels(x_adv)
    y = y.view(-1, *[1] * (labels.ndim - 1))
    return (labels == y) if oracle.targeted else (labels != y) & (labels >= 0)


def nearest(pool: Tensor, labels: Tensor, x: Tensor, y: Tensor, *, targeted: bool) -> tuple[Tensor, Tensor]:
    """For each x the nearest image (L2) of the pool (M, C, H, W) whose label is a success, and whether there is one."""
    success = (labels == y[:, None]) == targeted
    far = torch.cdist(x.flatten(1), pool.flatten(1)).masked_fill(~success, torch.inf)
    found = success.any(1)
    return torch.where(found.view(-1, 1, 1, 1), pool[far.argmin(1)], x), found


def mosaic(x: Tensor, draws: Draws, *, finest: bool) -> Tensor:
    """Uniform noise in a grid of k by k cells, k drawn per sample; finest: in every pixel."""
    height, width = x.shape[2:]
    noise = draws.uniform(*x.shape[1:]).to(x)
    if finest:
        return noise
    cells = 1 + draws.stream("cells").integers(max(height, width)).view(-1, 1, 1)
    down = torch.arange(height, device=x.device).view(1, -1, 1) * cells // height
    across = torch.arange(width, device=x.device).view(1, 1, -1) * cells // width
    place = (down.clamp_max(height - 1) * width + across.clamp_max(width - 1)).flatten(1)
    return noise.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)


def between(x: Tensor, x_adv: Tensor, share: Tensor, norm: Norm) -> Tensor:
    """The point at that share (N,) of the distance: on the line, or for L∞ x_adv pressed into a smaller cube."""
    share = share.view(-1, 1, 1, 1)
    delta = x_adv - x
    if norm is Norm.LINF:
        radius = share * delta.abs().amax((1, 2, 3), keepdim=True)
        return x + torch.minimum(torch.maximum(delta, -radius), radius)
    return x + share * delta


def halvings(precision: float) -> int:
    """How many a search to that share of the distance takes."""
    return max(1, math.ceil(-math.log2(precision)))


def bisect(oracle: Oracle, x: Tensor, y: Tensor, x_adv: Tensor, norm: Norm, precision: float) -> Tensor:
    """The adversarial end of an interval, shorter than that share of the way from x to x_adv, which is adversarial."""
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(halvings(precision)):
        middle = (low + high) / 2
        success = succeeds(oracle, between(x, x_adv, middle, norm), y)
        low, high = torch.where(success, low, middle), torch.where(success, middle, high)
    return between(x, x_adv, high, norm)


def length(delta: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, 1, 1): its L2 norm, never 0."""
    return delta.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
