"""The universal perturbation: one change for all images, fitted on images of the attacker's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._learning import minibatches
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel, parse_number


@dataclass(frozen=True)
class Universal(Attack):
    """One perturbation v for all images (Moosavi-Dezfooli et al. 2017), by gradient ascent (Shafahi et al. 2020,
    algorithm 2): on minibatches of the attacker's images

        v <- project(v + step_size * steepest(mean grad min(loss, clip)))

    where clip keeps a few images from taking all of the gradient. step_size: by default eps / 10. target: the class to
    which all images are to go, None: away from their own.

    images: of the attacker's own to learn from, at least 1. epochs: how often each is seen, at least 1. batch: images
    per step, at least 1. clip: the loss beyond which an image pulls no more, above 0.

    Costs images * epochs forwards and backwards before, and nothing per judged image.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})
    summary: ClassVar[str] = "one perturbation for all images, fitted on training images"
    paper: ClassVar[str] = "Moosavi-Dezfooli et al. 2017, arXiv:1610.08401; Shafahi et al. 2020, arXiv:1811.11304"

    images: int = 500
    epochs: int = 20
    batch: int = 100
    step_size: str | float | None = None
    clip: float = 9.0
    target: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "images", "epochs", "batch")
        if self.step_size is not None and parse_number(self.step_size) <= 0:
            raise ConfigError(f"step_size is {self.step_size}: it must be above 0, in units of pixels in [0, 1]")
        if self.clip <= 0:
            raise ConfigError(f"clip is {self.clip}: it must be above 0, or no image has a gradient")

    @property
    def own_images(self) -> int:
        return self.images

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        size = threat.eps / 10 if self.step_size is None else parse_number(self.step_size)
        loss, goal = raised(y, self.target, self.clip)
        grey = torch.full_like(x[:1], 0.5)  # v is held as what it makes of a grey image, whose ball is all of v's
        seen = grey
        for rows in minibatches(len(x), self.batch, self.epochs, draws):
            x_adv = threat.project(x[rows] + seen - grey, x[rows])
            _, grad, _ = oracle[rows].grad(x_adv, goal[rows], loss)
            seen = threat.climb(seen, grad.mean(0, keepdim=True), grey, size)
        return Fitted(seen - grey, self.target)

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.images * self.epochs, self.images * self.epochs


@dataclass(frozen=True, eq=False)
class Fitted(Attack):
    """v (1, C, H, W) on every image."""

    change: Tensor
    target: int | None

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        check_goal(oracle, self.target)
        return threat.project(x + self.change, x)


def raised(y: Tensor, target: int | None, clip: float) -> tuple[losses.Loss, Tensor]:
    """(what is raised for the mean over images, the labels it is taken for): away from y, or towards one class."""
    loss = losses.named("ce", targeted=target is not None)
    goal = y if target is None else torch.full_like(y, target)
    return lambda logits, label: loss(logits, label).clamp_max(clip), goal


def check_goal(oracle: Oracle, target: int | None) -> None:
    if oracle.targeted and target is None:
        raise ConfigError("what is fitted before images are seen cannot reach a target of each: give the one `target`")
