"""Bit-depth reduction: fewer grey levels, so that small changes vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_local.core.draws import Draws
from robustbench_local.defenses._wrapper import Wrapper, check
from robustbench_local.ops.soft_rounding import smooth_round

BLUR = 0.2  # of a level: see smooth_round; on MNIST in L2 the attacker's best of 0.1 to 0.3


@dataclass(frozen=True)
class BitDepth(Wrapper):
    """Every value rounded to one of 2^bits levels from 0 to 1. The paper: 1 bit on MNIST, 4 or 5 on CIFAR-10.

    Gradients see smooth rounding: a step in L2 goes where values can change level, in L∞ it is the identity's.

    bits: per channel, from 1 to 8.
    """

    summary: ClassVar[str] = "pixels rounded to a few grey levels"
    paper: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"
    family: ClassVar[str] = "denoising"
    version: ClassVar[int] = 2

    bits: int = 4

    def __post_init__(self) -> None:
        check("bits", self.bits, 1, 8, "bits per channel")

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        top = (1 << self.bits) - 1
        return (x * top).round() / top

    def soft(self, x: Tensor, draws: Draws | None) -> Tensor:
        top = (1 << self.bits) - 1
        return smooth_round(x * top, BLUR) / top
