"""Fog, frost, snow, and what spatters on the lens."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.corruptions._colour import luma
from robustbench_local.attacks.corruptions._edges import canny_8_bit
from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, EXTRA
from robustbench_local.attacks.corruptions._plasma import SIDE, clouds
from robustbench_local.attacks.corruptions._sampling import zoomed
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.attacks.corruptions.blur import along, blurred
from robustbench_local.core.corruption import rounded, truncated
from robustbench_local.core.draws import Draws
from robustbench_local.ops.separable import framed, separable

_MUD, _WATER = (63 / 255, 42 / 255, 20 / 255), (175 / 255, 238 / 255, 238 / 255)
_ICE = (0.80, 0.91, 1.0)
_FAR = 20  # pixels, beyond which a distance no longer counts
_FINE = 2**-16  # in whole multiples of it OpenCV counts distances
_STEPS = {
    (down, right): {1: 1.0, 2: round(1.4 / _FINE) * _FINE, 5: round(2.1969 / _FINE) * _FINE}[down**2 + right**2]
    for down in range(-2, 3)
    for right in range(-2, 3)
    if down**2 + right**2 in (1, 2, 5)
}


@dataclass(frozen=True)
class Fog(OfTwoSets):
    """(x + c p) m / (m + c), p a plasma and m the image's largest value. levels: (c, decay of the plasma).

    The published code divides a number by the decay at every halving, and draws that number times a uniform one between
    it and its negative: the plasma's amplitude falls by the square of the decay.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "fog: clouds of a plasma fractal"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    imagenet: ClassVar[tuple[Any, ...]] = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
    size: ClassVar[int] = SIDE  # of the plasma, where larger than the image

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        thickness, decay = self.level
        most = x.amax((1, 2, 3), keepdim=True)
        foggy: Tensor = (x + thickness * clouds(x, decay**2, draws, self.size)) * (most / (most + thickness))
        return foggy


@dataclass(frozen=True)
class Frost(OfTwoSets):
    """a x + b ice. levels: (a, b), the published ones; the ice is generated, where CIFAR-10-C has photographs.

    Ice: the ridges of two plasmas, sharp like needles, brighter where they cross, tinted blue. It covers as much as in
    the photographs only roughly: figures are not comparable to CIFAR-10-C's frost.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "frost on the window (generated ice, not the published photographs)"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    imagenet: ClassVar[tuple[Any, ...]] = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        kept, added = self.level
        frosted: Tensor = kept * x + added * self._ice(x, draws)
        return frosted

    def _ice(self, x: Tensor, draws: Draws) -> Tensor:
        crystals = [1 - (2 * clouds(x, fall, draws) - 1).abs() for fall in (1.6, 2.0)]
        cover = (crystals[0].square() + crystals[1]) / 2
        blue = x.new_tensor(_ICE).view(1, 3, 1, 1)
        return cover * (blue if x.shape[1] == 3 else luma(blue))


@dataclass(frozen=True)
class Snow(OfTwoSets):
    """Normal noise zoomed, thresholded and blurred along its fall; the image bleached; the flakes and their mirror.

    The flakes have 256 levels: cut to them before the blur, and rounded to them by ImageMagick after it.
    levels: (mean, standard deviation, zoom, threshold, radius and sigma of the blur, what is kept of the image).
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "snow, falling at an angle (generated, as in CIFAR-10-C)"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )
    imagenet: ClassVar[tuple[Any, ...]] = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        mean, deviation, zoom, threshold, radius, sigma, kept = self.level
        height, width = x.shape[2:]
        flakes = mean + deviation * draws.normal(1, height, width).to(x)
        down, across = (_zoom(length, zoom).to(x) for length in (height, width))
        flakes = separable(flakes, down, across)
        flakes = truncated(torch.where(flakes < threshold, 0, flakes))
        flakes = rounded(along(flakes, radius, sigma, draws.uniform() * 90 - 135))
        bleached: Tensor = kept * x + (1 - kept) * torch.maximum(x, luma(x) * 1.5 + 0.5)
        return bleached + flakes + flakes.flip(2, 3)


_zoom = functools.cache(zoomed)


@dataclass(frozen=True)
class Spatter(OfTwoSets):
    """Drops where blurred normal noise is high: of water at severities 1 to 3, of mud at 4 and 5.

    Water shines: its relief is what OpenCV makes of the distances from the drops' edges, on 256 levels all the way.
    levels: (mean, standard deviation, sigma of the blur, threshold, strength, whether mud).
    """

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "spattered with water or mud"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )
    imagenet: ClassVar[tuple[Any, ...]] = (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    )

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        mean, deviation, sigma, threshold, strength, mud = self.level
        noise = mean + deviation * draws.normal(1, *x.shape[2:]).to(x)
        liquid = blurred(noise, sigma)
        if mud:
            return muddied(x, liquid > threshold, strength)
        drops = (torch.where(liquid < threshold, 0, liquid) * 255).floor() % 256  # a cast starts again from 0
        shine = drops * _relief(drops)
        shine *= strength / shine.amax((1, 2, 3), keepdim=True).clamp_min(1)
        return x + shine * _tint(x, _WATER)


def muddied(x: Tensor, drops: Tensor, sigma: float) -> Tensor:
    """x under mud where drops (N, 1, H, W), blurred by sigma, are thick."""
    cover = blurred(drops.to(x), sigma)
    cover = torch.where(cover < 0.8, 0, cover)
    return x * (1 - cover) + cover * _tint(x, _MUD)


def _tint(x: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """A colour (1, 3, 1, 1), or for images of one channel its first component, as MNIST-C takes it."""
    return x.new_tensor(colour[: x.shape[1]]).view(1, -1, 1, 1)


def _relief(x: Tensor) -> Tensor:
    """(N, 1, H, W) in 0 .. 255: light on drops x, like it, from how far each pixel is from a drop's edge."""
    far = _mean_of_nine(chamfer(canny_8_bit(x, low=50, high=150), _FAR).to(x)).floor()
    slope = x.new_tensor([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = F.conv2d(framed(_equalised(far), 1, 1, "mirror"), slope[None, None])
    return _mean_of_nine(lit.clamp(0, 255)).round()


def _equalised(x: Tensor) -> Tensor:
    """Whole numbers x (N, 1, H, W) in 0 .. 20, each as what share of them is no larger, in 0 .. 255.

    The smallest become 0; an image of one number stays as it is.
    """
    level = x.long().flatten(1)
    counts = x.new_zeros(len(x), _FAR + 1).scatter_add_(1, level, x.new_ones(()).expand(level.shape))
    first = counts.gather(1, level.amin(1, keepdim=True))
    others = level.shape[1] - first
    share = (counts.cumsum(1).gather(1, level) - first) * (255 / others.clamp_min(1))
    return torch.where(others > 0, share.round(), level.to(x)).view_as(x)


def chamfer(edges: Tensor, most: int) -> Tensor:
    """(N, 1, H, W): how far the nearest of edges (N, 1, H, W) bool is, at most `most` pixels.

    OpenCV's measure, the shortest way in steps of 1 to the side, 1.4 aslant and 2.1969 as a knight goes.
    """
    far = torch.where(edges, 0.0, float(most))
    height, width = edges.shape[2:]
    while True:
        padded = F.pad(far, (2,) * 4, value=float(most))
        nearer = far
        for (down, right), step in _STEPS.items():
            nearer = torch.minimum(nearer, padded[:, :, 2 + down :, 2 + right :][:, :, :height, :width] + step)
        if torch.equal(nearer, far):
            return far
        far = nearer


def _mean_of_nine(x: Tensor) -> Tensor:
    return F.avg_pool2d(framed(x, 1, 1, "mirror"), 3, stride=1)
