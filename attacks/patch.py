"""The adversarial patch: a square of free pixels, fitted on the attacker's own images and put on every other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._learning import minibatches
from robustbench_local.attacks.universal import check_goal, raised
from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Patch(Attack):
    """Brown et al. 2017, equation 1: the patch of the greatest expected loss over images and places,

        p <- clip(p + step_size * sign(mean grad), 0, 1)

    side: of the square, in pixels. place: row and column of its upper left corner; None draws one for every image and
    step, and one for every judged image (the paper also turns and scales). target: the class to which all images are
    to go, None: away from their own. With l0:k the square may have k pixels.

    images: of the attacker's own to learn from, at least 1. epochs: how often each is seen, at least 1. batch: images
    per step, at least 1. step_size: of a step of the patch, above 0, where white is 1.

    Costs images * epochs forwards and backwards before, and nothing per judged image.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.NONE, Norm.L0})
    summary: ClassVar[str] = "one square of free pixels for all images, fitted on training images"
    paper: ClassVar[str] = "Brown et al. 2017, arXiv:1712.09665"

    side: int = 6
    place: tuple[int, ...] | None = None
    images: int = 500
    epochs: int = 20
    batch: int = 100
    step_size: float = 0.05
    target: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "side", "images", "epochs", "batch")
        if self.step_size <= 0:
            raise ConfigError(f"step_size is {self.step_size}: it must be above 0, in units of pixels in [0, 1]")
        if self.place is not None and (len(self.place) != 2 or min(self.place) < 0):
            raise ConfigError(f"place is {list(self.place)}: row and column of the corner, as in [0, 0]")

    @property
    def own_images(self) -> int:
        return self.images

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        height, width = (size - self.side for size in x.shape[2:])
        down, right = self.place or (0, 0)
        if down > height or right > width:
            raise ConfigError(f"a patch of side {self.side} at {[down, right]} leaves an image of {tuple(x.shape[2:])}")
        if threat.norm is Norm.L0 and threat.eps < self.side**2:
            raise ConfigError(f"a patch of side {self.side} has {self.side**2} pixels, and {threat} allows fewer")
        loss, goal = raised(y, self.target, torch.inf)
        patch = torch.full_like(x[:1, :, : self.side, : self.side], 0.5)
        for turn, rows in enumerate(minibatches(len(x), self.batch, self.epochs, draws)):
            where = square(x[rows], self.side, self.place, draws[rows].stream(f"place:{turn}"))
            _, grad, _ = oracle[rows].grad(pasted(x[rows], patch, where), goal[rows], loss)
            mean = grad[where].mean(0).permute(2, 0, 1)
            patch = (patch + self.step_size * mean.sign()).clamp(0, 1)
        return Fitted(patch, self.place, self.target)

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.images * self.epochs, self.images * self.epochs


@dataclass(frozen=True, eq=False)
class Fitted(Attack):
    """A patch (1, C, side, side), pasted onto every image."""

    patch: Tensor
    place: tuple[int, ...] | None
    target: int | None

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        check_goal(oracle, self.target)
        return pasted(x, self.patch, square(x, self.patch.shape[3], self.place, draws.stream("place")))


Index = tuple[Tensor, slice, Tensor, Tensor]


def square(x: Tensor, side: int, place: tuple[int, ...] | None, draws: Draws) -> Index:
    """The index of a square of each image: x[square] is (N, side, side, C)."""
    if place is None:
        down, right = (draws.integers(size - side + 1) for size in x.shape[2:])
    else:
        down, right = (torch.full((len(x),), corner, device=x.device) for corner in place)
    each, along = torch.arange(len(x), device=x.device), torch.arange(side, device=x.device)
    return each[:, None, None], slice(None), (down[:, None] + along)[:, :, None], (right[:, None] + along)[:, None]


def pasted(x: Tensor, patch: Tensor, where: Index) -> Tensor:
    x_adv = x.clone()
    x_adv[where] = patch.permute(0, 2, 3, 1)
    return x_adv
