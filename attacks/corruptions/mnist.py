"""MNIST-C: those that CIFAR-10-C has as well, with constants of their own, and its drawn lines, stripes and edges.

The published set has one severity of each, which is the default here; the others are those of its code, or ours where
it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._colour import luma
from robustbench_local.attacks.corruptions._edges import canny
from robustbench_local.attacks.corruptions._papers import MNIST_C, MU_GILMER
from robustbench_local.attacks.corruptions._sampling import pixels
from robustbench_local.attacks.corruptions.blur import MotionBlur, blurred
from robustbench_local.attacks.corruptions.lighting import Brightness
from robustbench_local.attacks.corruptions.noise import ImpulseNoise, ShotNoise
from robustbench_local.attacks.corruptions.weather import Fog, muddied
from robustbench_local.core.corruption import Corruption, truncated
from robustbench_local.core.draws import Draws
from robustbench_local.ops.separable import gaussian

_SIDE = 28  # pixels, what lengths here are counted in; larger images in proportion
_FADE = 2.3  # pixels from a line's middle to where its logarithm falls to 1 - infinity


@dataclass(frozen=True)
class MnistShotNoise(ShotNoise):
    """Light in grains, as CIFAR-10-C has it, with MNIST-C's constants."""

    benchmark: ClassVar[str] = MNIST_C
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (60, 25, 12, 5, 3)

    severity: int = 5


@dataclass(frozen=True)
class MnistImpulseNoise(ImpulseNoise):
    """Values replaced by 0 or 1, with MNIST-C's shares."""

    benchmark: ClassVar[str] = MNIST_C
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (0.03, 0.06, 0.09, 0.17, 0.27)

    severity: int = 4


@dataclass(frozen=True)
class MnistMotionBlur(MotionBlur):
    """Moved while the picture was taken, with MNIST-C's radii and sigmas."""

    benchmark: ClassVar[str] = MNIST_C
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    severity: int = 1


@dataclass(frozen=True)
class MnistBrightness(Brightness):
    """The value of HSV, plus MNIST-C's constants."""

    benchmark: ClassVar[str] = MNIST_C
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    severity: int = 5


@dataclass(frozen=True)
class MnistFog(Fog):
    """Cut from the corner of a plasma of 256 pixels, and so smoother than CIFAR-10-C's."""

    benchmark: ClassVar[str] = MNIST_C
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
    size: ClassVar[int] = 256
    scratch: ClassVar[int] = size * size

    severity: int = 5


@dataclass(frozen=True)
class MnistGlassBlur(Corruption):
    """A blur, cut to whole levels; then pixels swapped with near ones, one after another; then the blur again.

    The blur goes up and down only: the published call takes the columns of an image in grey for its channels.
    levels: (sigma, how far a pixel goes, turns). From below and from the right, (h, w) is swapped, with an even chance,
    with (h + i, w + j), i and j drawn from -reach .. reach - 1. Swaps 2 reach or more columns apart in one row touch
    other pixels, and so do those of rows below: all on a line 2 reach h + w = t are done at once, t falling.
    """

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "frosted glass: blurred, and pixels swapped with near ones"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))

    severity: int = 1

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        sigma, reach, turns = self.level
        height, width = x.shape[2:]
        down = gaussian(height, sigma, "nearest").to(x)
        flat = truncated(down @ x).flatten(2)
        place = torch.arange(height * width, device=x.device)
        row, column = place // width, place % width
        used = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
        wave = torch.where(used, 2 * reach * row + column, -1)
        for _ in range(turns):
            step = draws.integers(2 * reach, 2, height * width) - reach
            there = place + step[:, 0] * width + step[:, 1]
            there = torch.where(draws.integers(2, height * width) == 1, there, place)
            for t in range(2 * reach * height + width, -1, -1):
                here = (wave == t).nonzero()[:, 0]
                if len(here):
                    other = there[:, here].unsqueeze(1).expand(-1, x.shape[1], -1)
                    mine, theirs = flat[:, :, here], flat.gather(2, other)
                    flat = flat.scatter(2, other, mine)
                    flat[:, :, here] = theirs
        return down @ flat.view_as(x)


@dataclass(frozen=True)
class MnistSpatter(Corruption):
    """Drops of mud where blurred normal noise is high.

    levels: (mean, standard deviation, sigma of the blur, threshold, sigma of the drops' edges).
    """

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "spattered with mud"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )

    severity: int = 4

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        mean, deviation, sigma, threshold, soft = self.level
        noise = mean + deviation * draws.normal(1, *x.shape[2:]).to(x)
        return muddied(x, blurred(noise, sigma) > threshold, soft)


@dataclass(frozen=True)
class Stripe(Corruption):
    """Both sides inverted. levels: columns of 28 on each side; MNIST-C is severity 3."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "a stripe on each side inverted"
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (3, 5, 7, 9, 11)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        width = round(self.level * x.shape[3] / _SIDE)
        column = torch.arange(x.shape[3], device=x.device)
        return torch.where((column < width) | (column >= x.shape[3] - width), 1 - x, x)


@dataclass(frozen=True)
class DottedLine(Corruption):
    """White lines from side to side, two columns there and two not. levels: how many; MNIST-C is severity 1."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "dotted lines drawn across"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (1, 2, 3, 4, 5)

    severity: int = 1

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        for _ in range(self.level):
            ends = draws.integers(_SIDE - 1, 2).to(x)
            sides = x.new_tensor([0.0, _SIDE - 1]).expand(len(x), 2)
            line = drawn(x, torch.stack([sides, ends], 2))
            x = (x + line * (_columns(x) // 2 % 2 == 1)).clamp_max(1)
        return x


@dataclass(frozen=True)
class Zigzag(Corruption):
    """White zigzags, slightly tilted. levels: how many; MNIST-C is severity 1."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "zigzags drawn across"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (1, 2, 3, 4, 5)

    severity: int = 1

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        for _ in range(self.level):
            start = draws.integers(_SIDE - 1).to(x)
            tilt = torch.atan((draws.integers(10) - 5).to(x) / 23)
            x = (x + drawn(x, _teeth(start, tilt))).clamp_max(1)
        return x


@dataclass(frozen=True)
class CannyEdges(Corruption):
    """Its edges instead of the image. levels: sigma of the blur before; MNIST-C is severity 1."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "its edges instead of the image"
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (1, 1.25, 1.5, 1.75, 2)

    severity: int = 1

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        # where less of the blur lies inside the image it counts for more: as if outside repeated what is inside
        inside = blurred(torch.nn.functional.pad(torch.ones_like(x[:1, :1]), (8,) * 4), self.level)
        smooth = blurred(torch.nn.functional.pad(luma(x), (8,) * 4), self.level) / inside.clamp_min(1e-6)
        edges = canny(smooth[:, :, 8:-8, 8:-8], low=0.1, high=0.2)
        return edges.to(x).expand_as(x)


def drawn(x: Tensor, points: Tensor) -> Tensor:
    """(N, 1, H, W) in [0, 1]: lines through points (N, P, 2), (column, row) in pixels of 28, columns rising.

    A line is 1 + log(1 - d / 2.3) at d pixels above or below its middle.
    """
    height, width = x.shape[2:]
    total = x.new_zeros(len(x), 1, height, width)
    rows, columns = pixels(x)
    rows, columns = (place * ((_SIDE - 1) / max(length - 1, 1)) for place, length in ((rows, height), (columns, width)))
    for first, last in zip(points.unbind(1)[:-1], points.unbind(1)[1:], strict=True):
        (c0, r0), (c1, r1) = (point[:, :, None, None].unbind(1) for point in (first, last))
        far = (rows - r0 - (r1 - r0) / (c1 - c0) * (columns - c0)).abs().clamp_max(_FADE - 1e-6)
        line = (1 + torch.log1p(-far / _FADE)).clamp_min(0)
        total = total + (line * ((columns >= c0.floor()) & (columns < c1.ceil()))).unsqueeze(1)
    return total.clamp_max(1)


def _teeth(start: Tensor, tilt: Tensor) -> Tensor:
    """(N, 8, 2): from column 2 over 23 columns, teeth of 2 up, 2 down and 2 wide each, turned by tilt (N,)."""
    reach = 23 / tilt.cos()
    wide = torch.tensor([0.0, 2, 6, 10, 14, 18, 22]).to(start).expand(len(start), 7)
    high = torch.tensor([0.0, 2, -2, 2, -2, 2, -2]).to(start).expand(len(start), 7)
    wide = torch.cat([wide, reach[:, None]], 1)
    high = torch.cat([high, (-1 / (reach - 20))[:, None]], 1)
    cos, sin = tilt.cos()[:, None], tilt.sin()[:, None]
    return torch.stack([2 + cos * wide - sin * high, start[:, None] + sin * wide + cos * high], 2)


def _columns(x: Tensor) -> Tensor:
    """(W,) int64: which of 28 columns each is."""
    width = x.shape[3]
    return torch.arange(width, device=x.device) * _SIDE // width
