"""MART: adversarial training that weighs images by how badly the network already errs on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._adversarial import Adversarial


@dataclass(frozen=True)
class Mart(Adversarial):
    """Wang et al. 2020 (ICLR), equation 11: boosted cross-entropy at x_adv, plus beta times the divergence from the
    answer at x, weighted by one minus the true class's probability at x. Theirs: beta 5, 10 steps of 0.007.

    beta: the weight of the divergence, at least 0.
    """

    summary: ClassVar[str] = "MART: boosted cross-entropy, and divergence weighted by misclassification"
    paper: ClassVar[str] = "Wang et al. 2020, ICLR (rklOg6EFwS); AWP: Wu et al. 2020, arXiv:2004.05884"
    family: ClassVar[str] = "adversarial training"

    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ConfigError(f"beta is {self.beta}: it must be 0 or more, the weight of the divergence")

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return self.from_nearby(net, x, y, draws)

    def outer(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, draws: Draws) -> Tensor:
        clean = call(net, x, draws.stream("clean"))
        worst = call(net, x_adv, draws.stream("adversarial"))
        wrong = losses.best_other(worst.log_softmax(1), y).exp()
        boosted = losses.ce(worst, y) - torch.log1p(-wrong + 1e-6)
        missed = 1 - clean.softmax(1).gather(1, y[:, None])[:, 0]
        return (boosted + self.beta * losses.kl(worst, clean) * missed).mean()
