"""Noise on every pixel: CIFAR-10-C's four, a sensor's, and plain noise of any kind and amplitude."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, EXTRA
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.core.corruption import SEVERITIES, Corruption
from robustbench_local.core.device import in_float64
from robustbench_local.core.draws import Draws
from robustbench_local.ops.noise import Kind, check_noise, gaussian, noisy, salt_pepper, speckle


@dataclass(frozen=True)
class GaussianNoise(OfTwoSets):
    """x + z, z normal. levels: its standard deviation."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "normal noise on every value"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.04, 0.06, 0.08, 0.09, 0.10)
    imagenet: ClassVar[tuple[Any, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return gaussian(x, self.level, draws)


@dataclass(frozen=True)
class ShotNoise(OfTwoSets):
    """Light comes in grains: Poisson(x c) / c. levels: c, the grains of a white value."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "Poisson noise: light in grains"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (500, 250, 100, 75, 50)
    imagenet: ClassVar[tuple[Any, ...]] = (60, 25, 12, 5, 3)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        grains: int = self.level
        return poisson(x, grains, draws) / grains


@dataclass(frozen=True)
class ImpulseNoise(OfTwoSets):
    """Values replaced by 0 or 1, each channel by itself. levels: the share of values."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "salt and pepper on every channel"
    levels: ClassVar[tuple[Any, ...]] = (0.01, 0.02, 0.03, 0.05, 0.07)
    imagenet: ClassVar[tuple[Any, ...]] = (0.03, 0.06, 0.09, 0.17, 0.27)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return salt_pepper(x, self.level, draws)


@dataclass(frozen=True)
class SpeckleNoise(OfTwoSets):
    """x + x z, z normal. levels: its standard deviation."""

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "normal noise in proportion to the value"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.06, 0.1, 0.12, 0.16, 0.2)
    imagenet: ClassVar[tuple[Any, ...]] = (0.15, 0.2, 0.35, 0.45, 0.6)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return speckle(x, self.level, draws)


@dataclass(frozen=True)
class SensorNoise(Corruption):
    """A camera's: Poisson(x e) + r z electrons, of e that a white value has. levels: (e, r)."""

    summary: ClassVar[str] = "a sensor's: grains of light and normal noise of reading out"
    paper: ClassVar[str] = "Foi et al. 2008, IEEE TIP 17(10) (the model; the levels are ours)"
    levels: ClassVar[tuple[Any, ...]] = ((1000, 10), (400, 8), (150, 6), (60, 4), (30, 3))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        electrons, read = self.level
        counted = poisson(x, electrons, draws) + read * draws.normal(*x.shape[1:])
        seen: Tensor = counted / electrons
        return seen


@dataclass(frozen=True)
class PlainNoise(Corruption):
    """Noise of any kind (see robustbench_local.ops.noise). amplitude: at severity 5; severity s takes s / 5 of it.

    kind: what noise it is.
    """

    summary: ClassVar[str] = "noise of any kind and amplitude: gaussian, uniform, laplace, salt_pepper, speckle"
    levels: ClassVar[tuple[Any, ...]] = tuple(severity / len(SEVERITIES) for severity in SEVERITIES)

    severity: int = 5
    kind: Kind = "gaussian"
    amplitude: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.kind, self.amplitude)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return noisy(x, self.kind, self.level * self.amplitude, draws)


def poisson(x: Tensor, grains: int, draws: Draws) -> Tensor:
    """Poisson numbers of mean x * grains, x in [0, 1] taken at the nearest of 256 levels; one draw for each.

    By inversion: a level's distribution function, moved up by the level, is one stretch of a single rising line, on
    which level + u finds level and number at once.
    """
    level = (x * 255).round()
    sought = in_float64(level) + in_float64(draws.uniform(*x.shape[1:]))
    line: Tensor = _distributions(grains, sought.device)
    place = torch.searchsorted(line.flatten(), sought, right=True)
    number: Tensor = place.to(x.device) - level.long() * line.shape[1]
    return number.to(x)


@functools.cache
def _distributions(grains: int, device: torch.device) -> Tensor:
    """(256, K) float64: level + P(Poisson(level / 255 * grains) <= k), the last entry exactly level + 1."""
    rate = torch.arange(256, dtype=torch.float64)[:, None] / 255 * grains
    count = torch.arange(int(grains + 12 * grains**0.5 + 20), dtype=torch.float64)
    steps: Tensor = torch.special.xlogy(count, rate) - rate - torch.lgamma(count + 1)
    line = steps.exp().cumsum(1).clamp_max(1)
    line[:, -1] = 1
    return (line + torch.arange(256)[:, None]).to(device)
