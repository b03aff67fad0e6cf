"""Out of focus, behind glass, moving, zooming."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, EXTRA
from robustbench_local.attacks.corruptions._sampling import zoomed
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.core.corruption import rounded, truncated
from robustbench_local.core.device import in_float64
from robustbench_local.core.draws import Draws
from robustbench_local.ops.separable import Edge, filtering, framed, gaussian, separable

_FAINT = 1e-4  # a tap of less weight than this is left out: all of them together move no grey level
_NOTHING = 1e-9  # a singular value of less than this is rounding


@dataclass(frozen=True)
class DefocusBlur(OfTwoSets):
    """A disk of that radius, itself blurred a little. levels: (radius, sigma of its blur), in pixels."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "out of focus: a disk"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    imagenet: ClassVar[tuple[Any, ...]] = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return summed(x, *_defocus(*x.shape[2:], self.level))


@dataclass(frozen=True)
class GaussianBlur(OfTwoSets):
    """levels: sigma in pixels; beyond the edge there is the edge."""

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "a normal blur"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.4, 0.6, 0.7, 0.8, 1)
    imagenet: ClassVar[tuple[Any, ...]] = (1, 2, 3, 4, 6)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return blurred(x, self.level)


@dataclass(frozen=True)
class GlassBlur(OfTwoSets):
    """A blur, cut to whole levels; then every pixel takes what a near one has; then the blur again.

    levels: (sigma, reach, turns). Row by row from below and column by column from the right, pixel (h, w) takes that of
    (h + a, w + b), a and b in -reach .. reach - 1 with equal chance, as the published code does it for images in
    colour: it meant to swap the two, but both names stood for the same memory.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "frosted glass: blurred, and pixels taken from next door"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    imagenet: ClassVar[tuple[Any, ...]] = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        sigma, reach, turns = self.level
        x = truncated(blurred(x, sigma))
        for _ in range(turns if min(x.shape[2:]) > 2 * reach else 0):
            x = x.flatten(2).gather(2, _taken(x, reach, draws).expand(-1, x.shape[1], -1)).view_as(x)
        return blurred(x, sigma)


def _taken(x: Tensor, reach: int, draws: Draws) -> Tensor:
    """(N, 1, H * W): which pixel of x each one has after a turn of glass blur."""
    height, width = x.shape[2:]
    place = torch.arange(height * width, device=x.device)
    moves = torch.zeros(height, width, dtype=torch.bool, device=x.device)
    moves[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    inner, moves = moves[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1], moves.flatten()
    step = draws.integers((2 * reach) ** 2, *inner.shape)
    down, right = (reach - 1 - each for each in (step // (2 * reach), step % (2 * reach)))
    source = place.repeat(len(x), 1)
    source[:, moves] += (down * width + right).flatten(1)
    # what lies ahead, below or to the right, has had its turn, and hands on what it took itself
    handed = torch.where((source > place) & moves[source], source, place)
    while not torch.equal(further := handed.gather(1, handed), handed):
        handed = further
    return source.gather(1, handed).unsqueeze(1)


@dataclass(frozen=True)
class MotionBlur(OfTwoSets):
    """A half normal curve along a line at an angle within 45 degrees of level, as ImageMagick draws it, who rounds.

    levels: (radius, sigma) in pixels.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "moved while the shutter was open"
    levels: ClassVar[tuple[Any, ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    imagenet: ClassVar[tuple[Any, ...]] = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        radius, sigma = self.level
        return rounded(along(x, radius, sigma, (draws.uniform() - 0.5) * 90))


@dataclass(frozen=True)
class ZoomBlur(OfTwoSets):
    """The mean of the image and of itself zoomed by 1, 1.01, ... levels: how many zooms, and their step.

    They are what NumPy's arange makes of 1 to 1.06, 1.11, 1.16, 1.21 and 1.26: it ends at 1.06, 1.11, 1.15, 1.20, 1.25.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "zoomed while the shutter was open"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))
    imagenet: ClassVar[tuple[Any, ...]] = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return summed(x, *_zooms(*x.shape[2:], *self.level))


def blurred(x: Tensor, sigma: float, edge: Edge = "nearest", truncate: float = 4.0) -> Tensor:
    """A normal blur of x (N, C, H, W)."""
    down, across = (_normal(length, sigma, edge, truncate).to(x) for length in x.shape[2:])
    return separable(x, down, across)


_normal = functools.cache(gaussian)


@functools.cache
def disk(radius: float, sigma: float) -> Tensor:
    """(K, K) float64: the pixels within `radius`, blurred by 3 x 3 normal weights, or 5 x 5 of a radius above 8.

    The published code keeps 8 pixels about the middle, or so many as a larger radius has: beyond them it is mirrored.
    """
    most, blur = (8, 1) if radius <= 8 else (int(radius), 2)
    reach = min(int(radius) + 1, most)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (place[:, None] ** 2 + place**2 <= radius**2).double()
    near = torch.exp(-(torch.arange(-blur, blur + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    near /= near.sum()
    disk = inside[None, None] / inside.sum()
    disk = framed(disk, blur, blur, "mirror") if reach == most else F.pad(disk, (blur,) * 4)
    return F.conv2d(disk, (near[:, None] * near)[None, None])[0, 0]


@functools.cache
def _defocus(height: int, width: int, level: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The disk as products of a column and a row, by its singular values."""
    columns, values, rows = torch.linalg.svd(disk(*level))
    kept = int((values > _NOTHING).sum())
    down = torch.stack([filtering(height, columns[:, k] * values[k], "mirror") for k in range(kept)])
    return down, torch.stack([filtering(width, rows[k], "mirror") for k in range(kept)])


@functools.cache
def _zooms(height: int, width: int, count: int, step: float) -> tuple[Tensor, Tensor]:
    """The mean of the image and its zooms, in the fewest terms: a pixel of all zooms moves along few straight lines."""
    step = (1 + step) - 1  # not quite 0.01, and by that 1.25 of 26 pixels are 33 as in the published set
    down, across = (
        torch.stack([torch.eye(length).double(), *(zoomed(length, 1 + i * step) for i in range(count))])
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
    turn = torch.deg2rad(in_float64(angle))
    away = torch.arange(len(weights), device=turn.device)[:, None]
    down, right = (torch.ceil(away * way - 0.5).long().to(x.device) for way in (turn.sin(), turn.cos()))  # (taps, N)
    number, channels, height, width = x.shape
    reach = len(weights) - 1
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    wide = padded.shape[3]
    rows = padded.flatten().as_strided((padded.numel() - width + 1, width), (1, 1))  # from any pixel, what follows it
    planes = torch.arange(number * channels, device=x.device).view(number, channels, 1) * padded.shape[2]
    here = (planes + torch.arange(height, device=x.device) + reach) * wide + reach
    total: Tensor = x * weights[0]
    for i, weight in enumerate(weights[1:], 1):
        there = here + (down[i] * wide + right[i])[:, None, None]
        total.add_(rows.index_select(0, there.flatten()).view_as(x), alpha=weight)
    return total
