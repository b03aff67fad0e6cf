"""Fog, frost, snow, and what spatters on the lens."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.corruptions._colour import luma
from attacks.corruptions._edges import canny
from attacks.corruptions._papers import CIFAR_10_C, EXTRA, IMAGENET_C
from attacks.corruptions._plasma import clouds
from attacks.corruptions._sampling import zoomed
from attacks.corruptions.blur import along, blurred
from robustbench_local.corruption import Corruption
from robustbench_local.draws import Draws
from robustbench_local.linear import separable

_MUD, _WATER = (63 / 255, 42 / 255, 20 / 255), (175 / 255, 238 / 255, 238 / 255)
_ICE = (0.80, 0.91, 1.0)
_FAR = 20  # pixels, beyond which a distance no longer counts


@dataclass(frozen=True)
class Fog(Corruption):
    """(x + c p) m / (m + c), p a plasma and m the image's largest value. levels: (c, decay of the plasma)."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "fog: clouds of a plasma fractal"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    size: ClassVar[int] = 0  # of the plasma, where larger than the image

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        thickness, decay = self.level
        most = x.amax((1, 2, 3), keepdim=True)
        foggy: Tensor = (x + thickness * clouds(x, decay, draws, self.size)) * (most / (most + thickness))
        return foggy


@dataclass(frozen=True)
class Frost(Corruption):
    """a x + b ice. levels: (a, b), the published ones; the ice is generated, where CIFAR-10-C has photographs.

    Ice: the ridges of two plasmas, sharp like needles, brighter where they cross, tinted blue. It covers as much as in
    the photographs only roughly: figures are not comparable to CIFAR-10-C's frost.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "frost on the window (generated ice, not CIFAR-10-C's photographs)"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        kept, added = self.level
        frosted: Tensor = kept * x + added * self._ice(x, draws)
        return frosted

    def _ice(self, x: Tensor, draws: Draws) -> Tensor:
        crystals = [1 - (2 * clouds(x, decay, draws) - 1).abs() for decay in (1.6, 2.0)]
        cover = (crystals[0].square() + crystals[1]) / 2
        blue = x.new_tensor(_ICE).view(1, 3, 1, 1)
        return cover * (blue if x.shape[1] == 3 else luma(blue))


@dataclass(frozen=True)
class Snow(Corruption):
    """Normal noise zoomed, thresholded and blurred along its fall; the image bleached; the flakes and their mirror.

    levels: (mean, standard deviation, zoom, threshold, radius and sigma of the blur, what is kept of the image).
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "snow, falling at an angle (generated, as in CIFAR-10-C)"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        mean, deviation, zoom, threshold, radius, sigma, kept = self.level
        height, width = x.shape[2:]
        flakes = mean + deviation * draws.normal(1, height, width).to(x)
        down, across = (_zoom(length, zoom).to(x) for length in (height, width))
        flakes = separable(flakes, down, across)
        flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
        flakes = along(flakes, radius, sigma, draws.uniform() * 90 - 135)
        bleached: Tensor = kept * x + (1 - kept) * torch.maximum(x, luma(x) * 1.5 + 0.5)
        return bleached + flakes + flakes.flip(2, 3)


_zoom = functools.cache(zoomed)


@dataclass(frozen=True)
class Spatter(Corruption):
    """Drops where blurred normal noise is high: of water at severities 1 to 3, of mud at 4 and 5.

    levels: (mean, standard deviation, sigma of the blur, threshold, strength, whether mud). Distances from the drops'
    edges are exact, where the published code's are those of a chamfer.
    """

    benchmark: ClassVar[str] = EXTRA
    summary: ClassVar[str] = "spattered with water or mud"
    paper: ClassVar[str] = IMAGENET_C
    levels: ClassVar[tuple[Any, ...]] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        mean, deviation, sigma, threshold, strength, mud = self.level
        noise = mean + deviation * draws.normal(1, *x.shape[2:]).to(x)
        liquid = blurred(noise, sigma)
        if mud:
            return muddied(x, liquid > threshold, strength)
        drops = torch.where(liquid < threshold, 0, liquid).clamp(0, 1)
        shine = drops * _relief(drops)
        shine *= strength / shine.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
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
    """(N, 1, H, W) in [0, 1]: light on drops x (N, 1, H, W), from how far each pixel is from a drop's edge."""
    edges = canny((x * 255).floor(), low=50, high=150, length=lambda down, right: down.abs() + right.abs())
    far = _mean_of_nine(_distance(edges).clamp_max(_FAR)).floor().long().flatten(1)
    counts = x.new_zeros(len(x), _FAR + 1).scatter_add_(1, far, x.new_ones(()).expand(far.shape))
    below = counts.cumsum(1)
    first = counts.gather(1, far.amin(1, keepdim=True))  # histogram equalisation: the darkest becomes 0
    level = (below.gather(1, far) - first) / (far.shape[1] - first).clamp_min(1)
    lit = F.conv2d(
        F.pad((level.view_as(x) * 255).round(), (1,) * 4, mode="reflect"),
        x.new_tensor([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])[None, None],
    )
    return _mean_of_nine(lit.clamp(0, 255)) / 255


def _mean_of_nine(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1,) * 4, mode="reflect"), 3, stride=1)


def _distance(edges: Tensor) -> Tensor:
    """(N, 1, H, W): pixels to the nearest of edges (N, 1, H, W) bool; large where there is none."""
    height, width = edges.shape[2:]
    rows, columns = (torch.arange(length, device=edges.device) for length in (height, width))
    none = 4.0 * (height + width) ** 2
    here = torch.where(edges, 0.0, none)
    across = (here.unsqueeze(3) + (columns[:, None] - columns).square()).amin(4)  # within each row
    down = (across.unsqueeze(2) + (rows[:, None] - rows).square()[..., None]).amin(3)
    return down.sqrt()
