"""TRADES: accuracy on clean images, traded against how much an example in the ball changes the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core import losses
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._adversarial import Adversarial


@dataclass(frozen=True)
class Trades(Adversarial):
    """Zhang et al. 2019, equation 5: cross-entropy at x plus beta times the worst KL divergence from the answer at x.

    Theirs: CIFAR-10 beta 6, 10 steps of 0.007 within 0.031; MNIST beta 1, 40 steps of 0.01 within 0.3.

    beta: the weight of robustness, at least 0.
    """

    summary: ClassVar[str] = "TRADES: clean cross-entropy plus beta times the worst divergence in the ball"
    paper: ClassVar[str] = "Zhang et al. 2019, arXiv:1901.08573; AWP: Wu et al. 2020, arXiv:2004.05884"
    family: ClassVar[str] = "adversarial training"

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ConfigError(f"beta is {self.beta}: it must be 0 or more, the weight of robustness")

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        training = net.training
        net.eval()
        with torch.no_grad():
            clean = call(net, x, draws.stream("clean"))
        net.train(training)
        return self.from_nearby(net, x, y, draws, loss=lambda logits, _: losses.kl(logits, clean))

    def outer(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, draws: Draws) -> Tensor:
        clean = call(net, x, draws.stream("clean"))
        worst = call(net, x_adv, draws.stream("adversarial"))
        return F.cross_entropy(clean, y) + self.beta * losses.kl(worst, clean).mean()
