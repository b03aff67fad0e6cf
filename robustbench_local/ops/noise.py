"""Noise on images, for attacks and defenses alike: every number comes from the sample's own draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, did_you_mean

LOUDEST = 1e6  # times white: any image is lost, and float32 is far from overflowing
Kind = Literal["gaussian", "uniform", "laplace", "salt_pepper", "speckle"]


def gaussian(x: Tensor, amplitude: float, draws: Draws) -> Tensor:
    """Additive; amplitude is the standard deviation."""
    return x + amplitude * draws.normal(*x.shape[1:])


def uniform(x: Tensor, amplitude: float, draws: Draws) -> Tensor:
    """Additive, in [-amplitude, amplitude); the standard deviation is amplitude / sqrt(3)."""
    return x + amplitude * (2 * draws.uniform(*x.shape[1:]) - 1)


def laplace(x: Tensor, amplitude: float, draws: Draws) -> Tensor:
    """Additive, of density exp(-|z| / amplitude) / (2 amplitude); the standard deviation is sqrt(2) amplitude."""
    centred = draws.uniform(*x.shape[1:]) - 0.5 + 2.0**-25  # the middle of each step of 2^-24: never the end
    return x - amplitude * centred.sign() * torch.log1p(-2 * centred.abs())


def salt_pepper(x: Tensor, amplitude: float, draws: Draws) -> Tensor:
    """A share `amplitude` of all values is replaced, by 0 or by 1 with equal chance."""
    dice = draws.uniform(*x.shape[1:])
    return torch.where(dice < amplitude, (dice < amplitude / 2).to(x), x)


def speckle(x: Tensor, amplitude: float, draws: Draws) -> Tensor:
    """Multiplicative: x + x z with z normal of standard deviation amplitude."""
    return x + x * amplitude * draws.normal(*x.shape[1:])


_KINDS: dict[Kind, Callable[[Tensor, float, Draws], Tensor]] = {
    "gaussian": gaussian,
    "uniform": uniform,
    "laplace": laplace,
    "salt_pepper": salt_pepper,
    "speckle": speckle,
}


def noisy(x: Tensor, kind: Kind, amplitude: float, draws: Draws) -> Tensor:
    """x (N, ...) with noise of that kind, not clipped: who needs [0, 1] clips. Differentiable in x."""
    return _KINDS[kind](x, amplitude, draws)


def check_noise(kind: str, amplitude: float) -> None:
    """ConfigError unless there is such a noise. amplitude is in pixel units; of salt and pepper it is a share."""
    kinds = get_args(Kind)
    if kind not in kinds:
        raise ConfigError(f'noise "{kind}" is unknown{did_you_mean(kind, kinds)}: one of {", ".join(kinds)}')
    most, meaning = (1.0, "a share of the pixels") if kind == "salt_pepper" else (LOUDEST, "where white is 1")
    if not 0 <= amplitude <= most:
        raise ConfigError(f"amplitude is {amplitude}: it must be in [0, {most:g}], {meaning}")
