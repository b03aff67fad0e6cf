"""Wavelet shrinkage: small Haar coefficients are noise and go, large ones give a little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check


@dataclass(frozen=True)
class Wavelet(Wrapper):
    """Soft thresholding of the details of an orthonormal Haar transform; Donoho: threshold = sigma sqrt(2 log pixels).

    Images whose sides 2^levels does not divide are repeated at their lower and right edges meanwhile.

    threshold: what details are shrunk by, in [0, 10], where white is 1. levels: halvings of the image, from 1 to 8.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "Haar wavelet shrinkage"
    paper: ClassVar[str] = "Donoho 1995, doi:10.1109/18.382009; Prakash et al. 2018, arXiv:1801.08926"
    family: ClassVar[str] = "denoising"

    threshold: float = 0.1
    levels: int = 2

    def __post_init__(self) -> None:
        check("threshold", self.threshold, 0, 10, "where white is 1")
        check("levels", self.levels, 1, 8, "halvings of the image")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        height, width = x.shape[2:]
        step = 2**self.levels
        padded = F.pad(x, (0, -width % step, 0, -height % step), mode="replicate")
        return self._shrunk(padded, self.levels)[..., :height, :width].clamp(0, 1)

    def _shrunk(self, x: Tensor, levels: int) -> Tensor:
        if not levels:
            return x
        a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        rough = self._shrunk((a + b + c + d) / 2, levels - 1)
        across, down, diagonal = (
            F.softshrink(detail / 2, self.threshold) for detail in (a - b + c - d, a + b - c - d, a - b - c + d)
        )
        out = torch.empty_like(x)
        out[..., 0::2, 0::2] = (rough + across + down + diagonal) / 2
        out[..., 0::2, 1::2] = (rough - across + down - diagonal) / 2
        out[..., 1::2, 0::2] = (rough + across - down - diagonal) / 2
        out[..., 1::2, 1::2] = (rough - across - down + diagonal) / 2
        return out
