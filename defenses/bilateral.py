"""Bilateral filter: a mean of neighbours, of which those of another colour count little, so that edges stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._neighbours import weighted_mean
from robustbench_local.defenses._wrapper import Wrapper, check, check_odd


@dataclass(frozen=True)
class Bilateral(Wrapper):
    """window: the side of the square of neighbours. sigma_space in pixels, sigma_colour in pixel values.

    Colours are compared over all channels together; edges are mirrored without repeating the edge itself.

    sigma_space: how fast weights fall with distance, in [0.1, 100] pixels. sigma_colour: how fast they fall with
    difference, in [0.001, 100], where white is 1.
    """

    differentiable: ClassVar[bool] = True
    summary: ClassVar[str] = "bilateral filter: blurs, but keeps edges"
    paper: ClassVar[str] = "Tomasi and Manduchi 1998, doi:10.1109/ICCV.1998.710815"
    family: ClassVar[str] = "denoising"

    window: int = 5
    sigma_space: float = 1.0
    sigma_colour: float = 0.1

    def __post_init__(self) -> None:
        check_odd("window", self.window, 21)
        check("sigma_space", self.sigma_space, 0.1, 100, "pixels")
        check("sigma_colour", self.sigma_colour, 1e-3, 100, "where white is 1")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        alike, near = 1 / (2 * self.sigma_colour**2), 1 / (2 * self.sigma_space**2)
        return weighted_mean(x, self.window // 2, 0, alike, near)
