"""The corruptions of one paper with two sets of constants: CIFAR-10-C's for small images, ImageNet-C's for large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from robustbench_local.attacks.corruptions._papers import HENDRYCKS, OF_LARGE
from robustbench_local.core.corruption import Corruption, truncated
from robustbench_local.ops.jpeg import compressed

LARGE = 64  # pixels: from this shorter side on constants are ImageNet-C's
QUALITY = 85  # of the JPEG files of ImageNet-C; CIFAR-10-C is kept without loss


@dataclass(frozen=True)
class OfTwoSets(Corruption):
    """levels: of CIFAR-10-C, by make_cifar_c.py; imagenet: of ImageNet-C, by make_imagenet_c.py, in the same form.

    What is published of ImageNet-C are JPEG files of quality 85, so a large image has been through such a file as well.
    """

    paper: ClassVar[str] = HENDRYCKS
    imagenet: ClassVar[tuple[Any, ...]]

    def at(self, height: int, width: int) -> Corruption:
        own = type(self).benchmark
        if min(height, width) < LARGE or own not in OF_LARGE:  # MNIST-C has some of these with constants of its own
            return self
        return self.knowing(levels=self.imagenet, benchmark=OF_LARGE[own])

    def written(self, x: Tensor) -> Tensor:
        levels = truncated(x)
        return levels if self.benchmark == type(self).benchmark else compressed(levels, QUALITY, "4:2:0")
