"""Random cropping and rescaling: a part of the image, drawn anew, at the image's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check
from robustbench_local.ops.separable import cut, separable


@dataclass(frozen=True)
class CropRescale(Wrapper):
    """share: the side of the crop, of the image's. Bilinear. The mean over draws is the judge's, not the defense's."""

    differentiable: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    summary: ClassVar[str] = "random crop, rescaled to the image's size"
    paper: ClassVar[str] = "Guo et al. 2018, arXiv:1711.00117"
    family: ClassVar[str] = "preprocessing"

    share: float = 0.875

    def __post_init__(self) -> None:
        check("share", self.share, 0.1, 1, "a share of the image's side")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        assert draws is not None
        corner = draws.uniform(2)
        axes = []
        for axis, length in enumerate(x.shape[2:]):
            side = max(1, round(self.share * length))
            start = (corner[:, axis] * (length - side + 1)).floor()
            whole = torch.tensor([0, length], device=x.device).expand(len(x), 2)
            axes.append(cut(length, start, torch.full_like(start, side), length, whole).to(x))
        return separable(x, *axes)
