"""What happens to an image without anybody aiming at a model: corruptions, five severities each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.blocks import blocks
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

SEVERITIES = (1, 2, 3, 4, 5)
BLOCK = 2**19  # values worked on at a time on a CPU: caches and allocators dislike more
_SLACK = 1e-4  # of a level: what float32 leaves of a whole one is not cut down to the one below


@dataclass(frozen=True)
class Corruption(Attack):
    """An attacker who sees nothing and is bound by no norm: subclasses are `levels` and `corrupt`.

    levels: the constants of each severity. benchmark: the published set it belongs to, such as "CIFAR-10-C", with the
    constants of that set; empty where the constants are ours. Of its 256 levels a published set has the next lower one,
    since its script casts to uint8; others are rounded to the nearest. scratch: values it needs beside an image's.
    Every image is corrupted, those that the model errs on as well, so that a row can also say how many of the corrupted
    images are classified rightly, as the published sets count it.

    severity: how strong it is, a whole number from 1 (mild) to 5.
    """

    access: ClassVar[Access] = Access.NONE
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.NONE})
    benchmark: ClassVar[str] = ""
    scratch: ClassVar[int] = 0
    levels: ClassVar[tuple[Any, ...]]

    severity: int = 3

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ConfigError(f"severity is {self.severity}: it must be a whole number in 1 .. {len(SEVERITIES)}")

    @property
    def level(self) -> Any:
        """The constants of this severity."""
        return self.levels[self.severity - 1]

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        """x (N, C, H, W) in [0, 1], C 1 or 3 -> the same shape; what leaves [0, 1] is clipped afterwards."""
        raise NotImplementedError

    def at(self, height: int, width: int) -> Corruption:
        """The same with the constants for images of that size, where a published set has others for it."""
        return self

    def written(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) as its file would hold it: of 256 levels in [0, 1]."""
        return truncated(x) if self.benchmark else rounded(x)

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """x (N, C, H, W) in [0, 1] -> corrupted, with 256 levels, as the files of the published sets have.

        ConfigError for other channels than 1 or 3; PluginError where `corrupt` gives other shapes or no numbers.
        """
        if x.shape[1] not in (1, 3):
            raise ConfigError(f"{type(self).__name__} takes images of 1 or 3 channels, these have {x.shape[1]}")
        fitting = self.at(*x.shape[2:])
        corrupted = torch.empty_like(x, memory_format=torch.contiguous_format)
        with torch.autocast(x.device.type, enabled=False):
            for rows in blocks(len(x), max(x[0].numel(), self.scratch), BLOCK, x.device):
                block = fitting.corrupt(x[rows].contiguous(), draws[rows])
                self._check(block, x[rows])
                corrupted[rows] = fitting.written(block)
        return corrupted

    def _check(self, made: Tensor, x: Tensor) -> None:
        if made.shape == x.shape and not made.isnan().any():
            return
        raise PluginError(
            f"{type(self).__name__} at severity {self.severity} makes images {tuple(made.shape)} of images "
            f"{tuple(x.shape)}, {int(made.isnan().sum())} of their values not numbers: that is its fault, "
            "and would count as robustness"
        )

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return self.apply(x, draws)


def rounded(x: Tensor) -> Tensor:
    """x -> the nearest of 256 levels in [0, 1]."""
    white = _white(x)
    return x.clamp(0, 1).mul_(white).round_().div_(white)


def truncated(x: Tensor) -> Tensor:
    """x -> the next lower of 256 levels in [0, 1], as a cast to uint8 has it."""
    white = _white(x)
    return x.clamp(0, 1).mul_(white).add_(_SLACK).floor_().div_(white)


def _white(x: Tensor) -> Tensor:
    return x.new_full((), 255)  # a tensor: CUDA multiplies by the reciprocal of a number
