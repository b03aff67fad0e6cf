"""Gradient regularisation: keep the loss's slope in the input small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Trainer


@dataclass(frozen=True)
class GradientRegularisation(Defense, Recipe):
    """Ross and Doshi-Velez 2018, equation 5: cross-entropy plus strength times the squared L2 norm of its gradient in
    the pixels, per image. Needs a second derivative: about three times the cost of plain training.

    strength: the weight of the gradient's norm, at least 0.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "training with a penalty on the squared input gradient"
    paper: ClassVar[str] = "Ross and Doshi-Velez 2018, arXiv:1711.09404"
    family: ClassVar[str] = "training"

    strength: float = 10.0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"strength is {self.strength}: it must be 0 or more")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        x = x.detach().requires_grad_()
        each = losses.ce(net(x), y)
        (slope,) = torch.autograd.grad(each.sum(), x, create_graph=True)
        return (each + self.strength * slope.square().flatten(1).sum(1)).mean()
