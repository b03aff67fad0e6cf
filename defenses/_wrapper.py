"""A defense that is one step before the network: what is common to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defense, Deployed, Preprocess
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Trainer


@dataclass(frozen=True)
class Wrapper(Defense):
    """Puts `apply` before any network; subclasses are their settings and that one function.

    differentiable: gradients pass through apply itself; otherwise they see `soft`, by default the identity (BPDA,
    Athalye et al. 2018, arXiv:1802.00420). stochastic: apply draws. encodes: what it gives is no image
    like x.
    """

    differentiable: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    encodes: ClassVar[bool] = False

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        """What is deployed: x (N, C, H, W) in [0, 1] -> the same kind of images."""
        raise NotImplementedError

    def soft(self, x: Tensor, draws: Draws | None) -> Tensor:
        """What gradients see, with the same draws."""
        return x

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return Deployed(base, [Step(self)])


class Step(Preprocess):
    """A Wrapper's functions as a module, in full precision whatever the network runs in."""

    def __init__(self, wrapper: Wrapper) -> None:
        super().__init__()
        self.wrapper, self.stochastic, self.encodes = wrapper, wrapper.stochastic, wrapper.encodes
        if wrapper.differentiable:
            self.surrogate = None  # type: ignore[assignment, method-assign]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.wrapper.apply(x, draws)

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.wrapper.soft(x, draws)


def check(name: str, value: float, low: float, high: float, meaning: str) -> None:
    """ConfigError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}: it must be in [{low:g}, {high:g}], {meaning}")


def check_odd(name: str, value: int, most: int = 99) -> None:
    """ConfigError unless value is odd, in 1 .. most: a window with a middle."""
    if not 1 <= value <= most or value % 2 == 0:
        raise ConfigError(f"{name} is {value}: it must be odd, in 1 .. {most}, so that the window has a middle")
