"""Gaussian blur: a low-pass filter before the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check
from robustbench_local.ops.constants import constant
from robustbench_local.ops.separable import mirrored, separable


@dataclass(frozen=True)
class GaussianBlur(Wrapper):
    """sigma in pixels; the bell ends at four sigma, and edges are mirrored without repeating the edge itself.

    sigma: of the bell, in [0.05, 10] pixels.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "Gaussian blur"
    paper: ClassVar[str] = "Li and Li 2017, arXiv:1612.07767 (mean filter)"
    family: ClassVar[str] = "denoising"

    sigma: float = 0.7

    def __post_init__(self) -> None:
        check("sigma", self.sigma, 0.05, 10, "pixels")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        down, across = (constant(x, _bell, length, self.sigma) for length in x.shape[2:])
        return separable(x, down, across)


def _bell(length: int, sigma: float) -> Tensor:
    """(length, length) float64: row i holds the weights of pixel i."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return mirrored(length, weights / weights.sum())
