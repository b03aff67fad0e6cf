"""JPEG compression before the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper
from robustbench_local.ops import jpeg


@dataclass(frozen=True)
class JPEG(Wrapper):
    """quality 1 .. 100, as libjpeg counts; subsampling of colour, 4:2:0 (the usual files) or 4:4:4 (none).

    codec: pillow takes the real one for every answer, image by image; torch is the same but for rare roundings, and
    fast. surrogate: gradients see JPEG with coefficients rounded smoothly (soft), or the identity, which is weaker.

    quality: from 1 to 100, as libjpeg counts. subsampling: how coarsely colour is kept.
    """

    summary: ClassVar[str] = "JPEG compression"
    paper: ClassVar[str] = "Dziugaite et al. 2016, arXiv:1608.00853"
    family: ClassVar[str] = "preprocessing"
    version: ClassVar[int] = 2

    quality: int = 75
    subsampling: jpeg.Subsampling = "4:2:0"
    codec: Literal["torch", "pillow"] = "torch"
    surrogate: jpeg.Surrogate = "soft"

    def __post_init__(self) -> None:
        jpeg.check_settings((self.quality,), self.subsampling)

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        compress = jpeg.by_pillow if self.codec == "pillow" else jpeg.compressed
        return compress(x, self.quality, self.subsampling)

    def soft(self, x: Tensor, draws: Draws | None) -> Tensor:
        return x if self.surrogate == "identity" else jpeg.softly(x, self.quality, self.subsampling)
