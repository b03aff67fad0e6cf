"""Light and colour: brighter, flatter, uneven, tinted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._colour import in_colour
from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, EXTRA
from robustbench_local.attacks.corruptions._sampling import pixels
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws


@dataclass(frozen=True)
class Brightness(OfTwoSets):
    """The value of HSV, plus a constant: hue and saturation stay. levels: the constant."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "brighter"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)
    imagenet: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        value = x.amax(1, keepdim=True)
        brighter = (value + self.level).clamp_max(1)
        return torch.where(value > 0, x * (brighter / value), brighter)  # black has neither hue nor saturation


@dataclass(frozen=True)
class Contrast(OfTwoSets):
    """Each channel drawn towards its mean. levels: what is left of the difference."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "less contrast"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)
    imagenet: ClassVar[tuple[Any, ...]] = (0.4, 0.3, 0.2, 0.1, 0.05)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return torch.lerp(x.mean((2, 3), keepdim=True), x, self.level)


@dataclass(frozen=True)
class Saturate(OfTwoSets):
    """The saturation s of HSV becomes a s + b, hue and value stay. levels: (a, b).

    Grey has the hue red, as usual; an image of one channel is taken for grey and turned to grey again (MNIST-C).
    """

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "paler or more colourful"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    imagenet: ClassVar[tuple[Any, ...]] = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return in_colour(x, draws, self._saturated)

    def _saturated(self, x: Tensor, draws: Draws) -> Tensor:
        factor, offset = self.level
        value = x.amax(1, keepdim=True)
        missing = value - x
        most = missing.amax(1, keepdim=True)  # value times saturation
        wanted: Tensor = value * (most / value.clamp_min(1e-12) * factor + offset).clamp(0, 1)
        red = x.new_tensor([0, 1, 1]).view(1, 3, 1, 1)
        share = torch.where(most > 0, missing / most.clamp_min(1e-12), red)
        return value - share * wanted


@dataclass(frozen=True)
class Gamma(Corruption):
    """x^g, or x^(1/g), with equal chance. levels: g."""

    summary: ClassVar[str] = "darker or brighter by a power"
    levels: ClassVar[tuple[Any, ...]] = (1.25, 1.5, 2, 2.5, 3.5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        power = torch.where(draws.integers(2) == 0, self.level, 1 / self.level)
        return x ** power.to(x).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class LightGradient(Corruption):
    """Lit from one side, at any angle: x times 1 - a on the far edge to 1 + a on the near one. levels: a."""

    summary: ClassVar[str] = "lit from one side"
    levels: ClassVar[tuple[Any, ...]] = (0.2, 0.35, 0.5, 0.65, 0.8)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        reach: float = self.level
        return x * (1 + reach * _ramp(x, draws))


@dataclass(frozen=True)
class Shadow(Corruption):
    """A shadow with a soft edge, at any angle, over a third to two thirds of the way. levels: the light it takes."""

    summary: ClassVar[str] = "a shadow falls across"
    levels: ClassVar[tuple[Any, ...]] = (0.2, 0.35, 0.5, 0.65, 0.8)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        taken: float = self.level
        ramp = _ramp(x, draws)
        border = (2 * draws.uniform(1, 1, 1).to(x) - 1) / 3
        shade = ((ramp - border) * 10 + 0.5).clamp(0, 1)  # a twentieth of the image from light to shadow
        return x * (1 - taken * shade)


@dataclass(frozen=True)
class ColourCast(Corruption):
    """A white balance that is off: channel c times exp(a t_c), t a random tint. levels: a.

    The tint has mean 0 over the channels and 1 as its largest size. An image of one channel is taken for grey and
    turned to grey again.
    """

    summary: ClassVar[str] = "a tint: white balance that is off"
    levels: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.6)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return in_colour(x, draws, self._tinted)

    def _tinted(self, x: Tensor, draws: Draws) -> Tensor:
        tint = draws.normal(3, 1, 1).to(x)
        tint = tint - tint.mean(1, keepdim=True)
        return x * torch.exp(self.level * tint / tint.abs().amax(1, keepdim=True))


def _ramp(x: Tensor, draws: Draws) -> Tensor:
    """(N, 1, H, W): from -1 to 1 across the image, at an angle of its own."""
    angle = 2 * math.pi * draws.uniform(1, 1, 1).to(x)
    rows, columns = (2 * place / max(length - 1, 1) - 1 for place, length in zip(pixels(x), x.shape[2:], strict=True))
    ramp = rows * angle.sin() + columns * angle.cos()
    return ramp / (angle.sin().abs() + angle.cos().abs())
