"""Out of focus, behind glass, moving, zooming."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.corruptions._papers import CIFAR_10_C, EXTRA, IMAGENET_C
from attacks.corruptions._sampling import zoomed
from robustbench_local.corruption import Corruption
from robustbench_local.draws import Draws
from robustbench_local.linear import Edge, gaussian, separable

_FAINT = 1e-6  # a tap of less weight than this is left out


@dataclass(frozen=True)
class DefocusBlur(Corruption):
    """A disk of that radius, itself blurred a little. levels: (radius, sigma of its blur), in pixels."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "out of focus: a disk"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        kernel = disk(*self.level).to(x)
        reach = len(kernel) // 2
        planes = F.pad(x, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(1)
        return F.conv2d(planes, kernel[None, None]).view_as(x)


@dataclass(frozen=True)
class GaussianBlur(Corruption):
    """levels: sigma in pixels; beyond the edge there is the edge."""

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "a normal blur"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = (0.4, 0.6, 0.7, 0.8, 1)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return blurred(x, self.level)


@dataclass(frozen=True)
class GlassBlur(Corruption):
    """A blur, then every pixel takes what a near one had, then the blur again.

    levels: (sigma, turns). Column by column and row by row from below, pixel (h, w) takes that of (h or h-1, w or w-1),
    each with equal chance, as the published code does it for images in colour: it meant to swap the two, but both
    names stood for the same memory. What is taken has then not changed yet: a whole turn is one gather.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "frosted glass: blurred, and pixels taken from next door"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        sigma, turns = self.level
        x = blurred(x, sigma)
        height, width = x.shape[2:]
        place = torch.arange(height * width, device=x.device).view(height, width)[2:, 2:]
        for _ in range(turns):
            step = draws.integers(4, height - 2, width - 2)
            taken = place - (step & 1) - (step >> 1) * width
            source = taken.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
            moved = x.flatten(2).gather(2, source)
            x = x.clone()
            x[:, :, 2:, 2:] = moved.view(*x.shape[:2], height - 2, width - 2)
        return blurred(x, sigma)


@dataclass(frozen=True)
class MotionBlur(Corruption):
    """A half normal curve along a line at an angle within 45 degrees of level, as ImageMagick draws it.

    levels: (radius, sigma) in pixels.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "moved while the shutter was open"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        radius, sigma = self.level
        return along(x, radius, sigma, (draws.uniform() - 0.5) * 90)


@dataclass(frozen=True)
class ZoomBlur(Corruption):
    """The mean of the image and of itself zoomed by 1, 1.01, ... levels: how many zooms."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "zoomed while the shutter was open"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = (6, 11, 16, 21, 26)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        count: int = self.level
        number, channels, height, width = x.shape
        down, across = (_zooms(length, count).to(x) for length in (height, width))
        wide = (x @ across.flatten(0, 1).mT).view(number, channels, height, count, width)
        high = wide.transpose(2, 3).reshape(number, channels, count * height, width)
        total = down.transpose(0, 1).flatten(1) @ high
        return (x + total) / (count + 1)


def blurred(x: Tensor, sigma: float, edge: Edge = "nearest", truncate: float = 4.0) -> Tensor:
    """A normal blur of x (N, C, H, W)."""
    down, across = (_normal(length, sigma, edge, truncate).to(x) for length in x.shape[2:])
    return separable(x, down, across)


_normal = functools.cache(gaussian)


@functools.cache
def disk(radius: float, sigma: float) -> Tensor:
    """(K, K) float64: the pixels within `radius`, blurred by 3 x 3 normal weights."""
    place = torch.arange(-int(radius) - 1, int(radius) + 2, dtype=torch.float64)
    inside = (place[:, None] ** 2 + place**2 <= radius**2).double()
    near = torch.exp(-(torch.arange(-1, 2, dtype=torch.float64) ** 2) / (2 * sigma**2))
    near /= near.sum()
    kernel = F.conv2d(inside[None, None] / inside.sum(), (near[:, None] * near)[None, None], padding=1)
    return kernel[0, 0]


def along(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """x blurred by exp(-i^2 / 2 sigma^2), i = 0 .. 2 radius pixels away in direction `angle` (N,), degrees."""
    taps = torch.arange(2 * radius + 1, dtype=torch.float64)
    curve = torch.exp(-(taps**2) / (2 * sigma**2))
    weights: list[float] = (curve / curve.sum())[curve > _FAINT].tolist()
    turn = torch.deg2rad(angle.double())
    height, width = x.shape[2:]
    reach = len(weights) - 1
    padded = F.pad(x, (reach,) * 4, mode="replicate").flatten(2)
    here = torch.arange(height, device=x.device)[:, None] * (width + 2 * reach) + torch.arange(width, device=x.device)
    here = (here + reach * (width + 2 * reach + 1)).flatten()
    total: Tensor = x.flatten(2) * weights[0]
    for i, weight in enumerate(weights[1:], 1):
        down, right = (torch.ceil(i * way - 0.5).long() for way in (turn.sin(), turn.cos()))
        there = here + (down * (width + 2 * reach) + right)[:, None]
        tap = padded.gather(2, there.unsqueeze(1).expand(-1, x.shape[1], -1))
        total.add_(tap, alpha=weight)
    return total.view_as(x)


@functools.cache
def _zooms(length: int, count: int) -> Tensor:
    """(count, length, length)."""
    return torch.stack([zoomed(length, 1 + step / 100) for step in range(count)])
