"""Label smoothing: targets that are never quite certain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defense
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Trainer


@dataclass(frozen=True)
class LabelSmoothing(Defense, Recipe):
    """Cross-entropy against (1 - smoothing) one-hot + smoothing / K (Szegedy et al. 2016, section 7).

    A known case of masked gradients rather than of robustness: it is here to be broken.

    smoothing: the share of a label that is spread over all classes, in [0, 1).
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "training against smoothed labels"
    paper: ClassVar[str] = "Szegedy et al. 2016, arXiv:1512.00567; as a defense Warde-Farley and Goodfellow 2016"
    family: ClassVar[str] = "training"

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"smoothing is {self.smoothing}: it must be in [0, 1), the share spread over all classes")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x), y, label_smoothing=self.smoothing)
