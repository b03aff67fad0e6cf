"""Random resizing and padding: the attacker cannot know where a pixel will lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._wrapper import Wrapper, check
from robustbench_local.ops.separable import cut, separable


@dataclass(frozen=True)
class ResizePad(Wrapper):
    """The image is resized to a size drawn from [smallest, largest], shares of its own, and put anywhere on zeros.

    What the network sees is `largest` times the image's size: 1 fits any network; the paper goes from 299 pixels to
    299 .. 330 on 331, smallest=1, largest=331/299, which needs a network that takes any size. Bilinear.

    smallest: the least share of its size that an image has, in [0.1, 4] and not above largest. largest: the greatest,
    in [0.1, 4].
    """

    differentiable: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    summary: ClassVar[str] = "random resizing and zero padding"
    paper: ClassVar[str] = "Xie et al. 2018, arXiv:1711.01991"
    family: ClassVar[str] = "preprocessing"

    smallest: float = 0.85
    largest: float = 1.0

    def __post_init__(self) -> None:
        check("smallest", self.smallest, 0.1, 4, "a share of the image's size")
        check("largest", self.largest, 0.1, 4, "a share of the image's size")
        if self.smallest > self.largest:
            raise ConfigError(f"smallest is {self.smallest}: it must not be above largest, {self.largest}")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        assert draws is not None
        share = self.smallest + (self.largest - self.smallest) * draws.uniform()
        corner = draws.uniform(2)
        axes = []
        for axis, length in enumerate(x.shape[2:]):
            size = max(1, round(self.largest * length))
            long = (share * length).round().clamp(1, size)
            begin = (corner[:, axis] * (size - long + 1)).floor()
            whole = torch.full_like(long, length)
            axes.append(cut(length, torch.zeros_like(long), whole, size, torch.stack([begin, long], 1)).to(x))
        return separable(x, *axes)
