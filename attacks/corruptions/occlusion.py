"""Something stands in front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._sampling import pixels
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws

_BARS = 4  # to a side of the image


@dataclass(frozen=True)
class Cutout(Corruption):
    """A grey square at a random place, all of it inside. levels: its side over the image's shorter side."""

    summary: ClassVar[str] = "a grey square in front"
    paper: ClassVar[str] = "DeVries and Taylor 2017, arXiv:1708.04552 (there for training)"
    levels: ClassVar[tuple[Any, ...]] = (0.2, 0.3, 0.4, 0.5, 0.6)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        side = round(self.level * min(x.shape[2:]))
        corner = draws.uniform(2, 1, 1).to(x)
        covered = torch.ones((), dtype=torch.bool, device=x.device)
        for place, length, at in zip(pixels(x), x.shape[2:], corner.unbind(1), strict=True):
            first = (at * (length - side + 1)).floor()
            covered = covered & (place >= first) & (place < first + side)
        return torch.where(covered.unsqueeze(1), 0.5, x)


@dataclass(frozen=True)
class Bars(Corruption):
    """A black fence at any angle, four bars to a side. levels: the share that the bars cover."""

    summary: ClassVar[str] = "behind the bars of a fence"
    levels: ClassVar[tuple[Any, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        turn, phase = draws.uniform(2, 1, 1, 1).to(x).unbind(1)
        rows, columns = pixels(x)
        angle = math.pi * turn
        across = (rows * angle.sin() + columns * angle.cos()) * (_BARS / min(x.shape[2:])) + phase
        return torch.where(across - across.floor() < self.level, 0, x)
