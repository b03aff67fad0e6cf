"""Rotations and translations: the worst of a grid, or of some drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.blocks import at_once
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

SEARCHES = ("grid", "random")
AT_ONCE = 32  # poses of every image in one query, of large images fewer


@dataclass(frozen=True)
class Spatial(Attack):
    """Engstrom et al. 2019, section 3: turn by up to `rotation` degrees, shift by up to `translation` pixels.

    search: "grid" tries rotations x translations x translations poses, evenly spaced, edges included; "random" the
    worst of `tries` drawn evenly. What comes in from outside is black. Per image that stays robust: one forward per
    pose.

    rotation: the largest angle, in degrees, in [0, 180]. translation: the largest shift, in pixels, at least 0.
    rotations: angles of the grid, at least 1. translations: shifts of the grid in either direction, at least 1. tries:
    poses that are drawn, at least 1.
    """

    access: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.NONE})
    summary: ClassVar[str] = "the worst rotation and translation"
    paper: ClassVar[str] = "Engstrom et al. 2019, arXiv:1712.02779"

    search: str = "grid"
    rotation: float = 30.0
    translation: float = 3.0
    rotations: int = 31
    translations: int = 5
    tries: int = 10

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise ConfigError(f'search "{self.search}" is unknown: one of {", ".join(SEARCHES)}')
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"rotation is {self.rotation}: give degrees in [0, 180]")
        if self.translation < 0:
            raise ConfigError(f"translation is {self.translation}: give pixels, at least 0")
        check_counts(self, "rotations", "translations", "tries")

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        poses = self._poses(draws).to(x)
        for some in poses.split(at_once(AT_ONCE, x[0].numel()), dim=1):
            rows = (~oracle.done).nonzero()[:, 0]
            if not len(rows):
                break
            oracle[rows].labels(moved(x[rows], some[rows]))
        return oracle.best(x)

    def _poses(self, draws: Draws) -> Tensor:
        """(N, P, 3): degrees, pixels to the right, pixels down."""
        reach = torch.tensor([self.rotation, self.translation, self.translation], device=draws.ids.device)
        if self.search == "random":
            return (2 * draws.uniform(self.tries, 3) - 1) * reach
        ticks = [torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1) for count in self._counts()]
        grid = torch.stack(torch.meshgrid(*ticks, indexing="ij"), -1).view(-1, 3)
        return (grid.to(reach) * reach).expand(len(draws), -1, -1)

    def _counts(self) -> tuple[int, int, int]:
        return self.rotations, self.translations, self.translations

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return (self.tries if self.search == "random" else math.prod(self._counts())), 0


def moved(x: Tensor, poses: Tensor) -> Tensor:
    """Images (N, C, H, W) in each of their poses (N, P, 3) -> (N, P, C, H, W), bilinear, black outside."""
    count, height, width = poses.shape[1], *x.shape[2:]
    angle, right, down = torch.deg2rad(poses[..., 0]), poses[..., 1], poses[..., 2]
    cos, sin = angle.cos(), angle.sin()
    # where a pixel comes from, in affine_grid's units of half an image: shift back, then turn back about the middle
    across, along = -2 * right / width, -2 * down / height
    aspect = height / width
    top = torch.stack([cos, sin * aspect, cos * across + sin * aspect * along], -1)
    bottom = torch.stack([-sin / aspect, cos, -sin / aspect * across + cos * along], -1)
    theta = torch.stack([top, bottom], -2).flatten(0, 1)
    copies = x.repeat_interleave(count, 0)
    grid = F.affine_grid(theta, list(copies.shape), align_corners=False)
    turned = F.grid_sample(copies, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned.clamp(0, 1).view(len(x), count, *x.shape[1:])
