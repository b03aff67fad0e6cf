"""Non-local means: a mean of pixels whose surroundings look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._lab import from_lab, to_lab
from robustbench_local.defenses._neighbours import weighted_mean
from robustbench_local.defenses._wrapper import Wrapper, check, check_odd


@dataclass(frozen=True)
class NonLocalMeans(Wrapper):
    """Pixels of a `window` x `window` square, weighted by exp(-d / strength^2).

    d is the mean squared difference of the `patch` x `patch` squares around both pixels, over all channels; edges are
    mirrored without repeating the edge itself. space: of images with three channels, "rgb", or "lab": lightness and
    colour apart, in L*a*b* in bytes, where the same strength smooths more. Feature squeezing takes window 11, patch 3,
    strength 4/255 and, with OpenCV's filter for coloured images, Lab. Gradients pass its last clipping as they are.

    window: the side of the square that is searched, odd, up to 41 pixels. patch: the side of the squares that are
    compared, odd, up to 11. strength: how far apart pixels may be and still be mixed, in [0.001, 10], where white is 1.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "non-local means: a mean over patches that look alike"
    paper: ClassVar[str] = "Buades et al. 2005, doi:10.1109/CVPR.2005.38; Xu et al. 2018, arXiv:1704.01155"
    family: ClassVar[str] = "denoising"

    window: int = 11
    patch: int = 3
    strength: float = 0.1
    space: str = "rgb"

    def __post_init__(self) -> None:
        check_odd("window", self.window, 41)
        check_odd("patch", self.patch, 11)
        check("strength", self.strength, 1e-3, 10, "where white is 1")
        if self.space not in ("rgb", "lab"):
            raise ConfigError(f'space is "{self.space}": it must be "rgb" or "lab"')

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        if self.space == "rgb" or x.shape[1] != 3:
            return self._mean(x)
        lab = to_lab(x)
        shown = from_lab(torch.cat([self._mean(lab[:, :1]), self._mean(lab[:, 1:])], 1))
        return shown + (shown.clamp(0, 1) - shown).detach()

    def _mean(self, x: Tensor) -> Tensor:
        values = x.shape[1] * self.patch**2
        return weighted_mean(x, self.window // 2, self.patch // 2, 1 / (values * self.strength**2))
