"""What files and screens do: fewer pixels, fewer levels, lossy codecs."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._papers import CIFAR_10_C
from robustbench_local.attacks.corruptions._sampling import resized
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.core.corruption import Corruption, truncated
from robustbench_local.core.draws import Draws
from robustbench_local.ops.jpeg import compressed
from robustbench_local.ops.separable import separable


@dataclass(frozen=True)
class Pixelate(OfTwoSets):
    """Fewer and larger pixels: means over boxes, there and back. levels: the smaller side over the larger."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "fewer and larger pixels"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)
    imagenet: ClassVar[tuple[Any, ...]] = (0.6, 0.5, 0.4, 0.3, 0.25)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        height, width = x.shape[2:]
        small = _boxes(x, _smaller(height, self.level), _smaller(width, self.level))
        return _boxes(small, height, width)


@dataclass(frozen=True)
class Resolution(Corruption):
    """Taken at a lower resolution and shown at the old one, linearly both ways. levels: the lower over the old."""

    summary: ClassVar[str] = "made smaller and enlarged again"
    levels: ClassVar[tuple[Any, ...]] = (0.75, 0.6, 0.5, 0.375, 0.25)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        down, across = (_there_and_back(length, _smaller(length, self.level)).to(x) for length in x.shape[2:])
        return separable(x, down, across)


@dataclass(frozen=True)
class JpegCompression(OfTwoSets):
    """JPEG with halved colour, as Pillow writes it. levels: the quality."""

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "JPEG"
    levels: ClassVar[tuple[Any, ...]] = (80, 65, 58, 50, 40)
    imagenet: ClassVar[tuple[Any, ...]] = (25, 18, 15, 10, 7)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return compressed(x, self.level, "4:2:0")


@dataclass(frozen=True)
class WebpCompression(Corruption):
    """Lossy WebP by Pillow's codec, image by image on the CPU. levels: the quality."""

    summary: ClassVar[str] = "lossy WebP"
    levels: ClassVar[tuple[Any, ...]] = (60, 40, 25, 15, 5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        from PIL import Image

        colour = x.expand(-1, 3, -1, -1)  # WebP knows no grey
        images = []
        for pixels in (colour * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy():
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "webp", quality=self.level)
            images.append(np.asarray(Image.open(file).convert("RGB")))
        back = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(x) / 255
        return back if x.shape[1] == 3 else back.mean(1, keepdim=True)


@dataclass(frozen=True)
class Quantise(Corruption):
    """Few levels, evenly spaced. levels: bits."""

    summary: ClassVar[str] = "few levels of grey and colour"
    levels: ClassVar[tuple[Any, ...]] = (5, 4, 3, 2, 1)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        most: int = 2**self.level - 1
        return (x * most).round() / most


def _boxes(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, height, width): means over boxes, across and then down, each rounded as Pillow does it: halves upwards."""
    down, across = resized(x.shape[2], height, "box").to(x), resized(x.shape[3], width, "box").to(x)
    half = 0.5 / 255
    return truncated(down @ truncated(x @ across.mT + half) + half)


@functools.cache
def _there_and_back(length: int, size: int) -> Tensor:
    """(length, length) float64: resampled to `size` pixels and back, linearly."""
    return resized(size, length, "triangle") @ resized(length, size, "triangle")


def _smaller(length: int, share: float) -> int:
    return max(1, int(length * share))
