"""No defense: plain training with cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.training import Recipe, Trainer


@dataclass(frozen=True)
class Undefended(Defense, Recipe):
    """The baseline of every table."""

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "plain training with cross-entropy"
    family: ClassVar[str] = "none"

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x), y)
