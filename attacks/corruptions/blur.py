"""Out of focus, behind glass, moving, zooming."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, EXTRA, IMAGENET_C
from robustbench_local.attacks.corruptions._sampling import zoomed
from robustbench_local.core.corruption import Corruption, rounded, truncated
from robustbench_local.core.draws import Draws
from robustbench_local.ops.separable import Edge, filtering, gaussian, separable

_FAINT = 1e-4  # a tap of less weight than this is left out: all of them together move no grey level
_STEP = 1.01 - 1  # of zooms; not quite 0.01, and by that 1.25 of 26 pixels are 33 as in the published set
_NOTHING = 1e-9  # a singular value of less than this is rounding


@dataclass(frozen=True)
class DefocusBlur(Corruption):
    """A disk of that radius, itself blurred a little. levels: (radius, sigma of its blur), in pixels."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "out of focus: a disk"
    paper: ClassVar[str] = IMAGENET_C
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return summed(x, *_defocus(*x.shape[2:], self.level))


@dataclass(frozen=True)
class GaussianBlur(Corruption):
    """levels: sigma in pixels; beyond the edge there is the edge."""

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "a normal blur"
    paper: ClassVar[str] = IMAGENET_C
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.4, 0.6, 0.7, 0.8, 1)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return blurred(x, self.level)


@dataclass(frozen=True)
class GlassBlur(Corruption):
    """A blur, cut to whole levels; then every pixel takes what a near one had; then the blur again.

    levels: (sigma, turns). Column by column and row by row from below, pixel (h, w) takes that of (h or h-1, w or w-1),
    each with equal chance, as the published code does it for images in colour: it meant to swap the two, but both
    names stood for the same memory. What is taken has then not changed yet: a whole turn is one gather.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "frosted glass: blurred, and pixels taken from next door"
    paper: ClassVar[str] = IMAGENET_C
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        sigma, turns = self.level
        x = truncated(blurred(x, sigma))
        height, width = x.shape[2:]
        place = torch.arange(height * width, device=x.device).view(height, width)[2:, 2:]
        for _ in range(turns if place.numel() else 0):
            step = draws.integers(4, height - 2, width - 2)
            taken = place - (step & 1) - (step >> 1) * width
            source = taken.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
            moved = x.flatten(2).gather(2, source)
            x = x.clone()
            x[:, :, 2:, 2:] = moved.view(*x.shape[:2], height - 2, width - 2)
        return blurred(x, sigma)


@dataclass(frozen=True)
class MotionBlur(Corruption):
    """A half normal curve along a line at an angle within 45 degrees of level, as ImageMagick draws it, who rounds.

    levels: (radius, sigma) in pixels.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "moved while the shutter was open"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        radius, sigma = self.level
        return rounded(along(x, radius, sigma, (draws.uniform() - 0.5) * 90))


@dataclass(frozen=True)
class ZoomBlur(Corruption):
    """The mean of the image and of itself zoomed by 1, 1.01, ... levels: how many zooms.

    They end at 1.06, 1.11, 1.15, 1.20 and 1.25: so NumPy's arange counts to 1.06, 1.11, 1.16, 1.21 and 1.26 exclusive.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "zoomed while the shutter was open"
    paper: ClassVar[str] = IMAGENET_C
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (7, 12, 16, 21, 26)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return summed(x, *_zooms(*x.shape[2:], self.level))


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


@functools.cache
def _defocus(height: int, width: int, level: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The disk as products of a column and a row, by its singular values."""
    columns, values, rows = torch.linalg.svd(disk(*level))
    kept = int((values > _NOTHING).sum())
    down = torch.stack([filtering(height, columns[:, k] * values[k], "mirror") for k in range(kept)])
    return down, torch.stack([filtering(width, rows[k], "mirror") for k in range(kept)])


@functools.cache
def _zooms(height: int, width: int, count: int) -> tuple[Tensor, Tensor]:
    """The mean of the image and its zooms, in the fewest terms: a pixel of all zooms moves along few straight lines."""
    down, across = (
        torch.stack([torch.eye(length).double(), *(zoomed(length, 1 + step * _STEP) for step in range(count))])
        for length in (height, width)
    )
    (left, first), (right, second) = (torch.linalg.qr(terms.flatten(1).mT) for terms in (down, across))
    columns, values, rows = torch.linalg.svd(first @ second.mT / (count + 1))
    kept = int((values > _NOTHING * values[0]).sum())
    return (
        (left @ columns[:, :kept] * values[:kept]).mT.reshape(kept, height, height).contiguous(),
        (right @ rows[:kept].mT).mT.reshape(kept, width, width).contiguous(),
    )


def summed(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """sum_k down_k x across_k^T for every image and channel of x (N, C, H, W): (K, H, H), (K, W, W)."""
    terms = zip(down.to(x), across.to(x), strict=True)
    total = separable(x, *next(terms))
    for term in terms:
        total += separable(x, *term)
    return total


def along(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """x blurred by exp(-i^2 / 2 sigma^2), i = 0 .. 2 radius pixels away in direction `angle` (N,), degrees."""
    taps = torch.arange(2 * radius + 1, dtype=torch.float64)
    curve = torch.exp(-(taps**2) / (2 * sigma**2))
    curve = curve[curve > _FAINT]
    weights: list[float] = (curve / curve.sum()).tolist()
    turn = torch.deg2rad(angle.double())
    number, channels, height, width = x.shape
    reach = len(weights) - 1
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    wide = padded.shape[3]
    rows = padded.flatten().as_strided((padded.numel() - width + 1, width), (1, 1))  # from any pixel, what follows it
    planes = torch.arange(number * channels, device=x.device).view(number, channels, 1) * padded.shape[2]
    here = (planes + torch.arange(height, device=x.device) + reach) * wide + reach
    total: Tensor = x * weights[0]
    for i, weight in enumerate(weights[1:], 1):
        down, right = (torch.ceil(i * way - 0.5).long() for way in (turn.sin(), turn.cos()))
        there = here + (down * wide + right)[:, None, None]
        total.add_(rows.index_select(0, there.flatten()).view_as(x), alpha=weight)
    return total
