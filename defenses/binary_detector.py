"""A second network as a detector: trained to tell PGD's images of the first one from clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.training import Recipe, Schedule, Trainer
from robustbench_local.defenses._adversarial import ascend
from robustbench_local.defenses._detector import Detecting, Detector, answer
from robustbench_local.defenses._wrapper import check


class Watched(Detector):
    """The score is a second network's log odds that the image (of 1 or 3 channels) is adversarial."""

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__(net)
        with seeded(0):
            self.watch = nn.Sequential(
                nn.Conv2d(3, width, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(2 * width, 1),
            )

    def measure(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        return answer(self.net, x, draws, "net"), self.odds(x)

    def odds(self, x: Tensor) -> Tensor:
        """(N,)"""
        odds: Tensor = self.watch(x.expand(-1, 3, -1, -1))
        return odds[:, 0].to(x.dtype)


@dataclass(frozen=True)
class BinaryDetector(Detecting):
    """Gong et al. 2017: a network on the image itself, trained on clean images and on what PGD makes of them against
    the network that it watches; its answer is the reject logit (as in Metzen et al. 2017, who read a hidden layer).

    threat, steps: of that PGD, in steps of 2.5 eps / steps. images: how many training images, at most, are used;
    epochs: how often they are seen; width: channels of the first convolution.

    threat: of the PGD that it learns from, in linf, l2 or l1.
    """

    summary: ClassVar[str] = "rejects what a second network, trained on PGD's images, takes for adversarial"
    paper: ClassVar[str] = "Gong et al. 2017, arXiv:1704.04960; Metzen et al. 2017, arXiv:1702.04267"

    threat: str = "linf:8/255"
    steps: int = 10
    epochs: int = 2
    images: int = 10_000
    width: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        ball = ThreatModel.parse(self.threat)
        if ball.norm in (Norm.NONE, Norm.L0):
            raise ConfigError(f"threat is {self.threat}: the detector learns from PGD, in linf, l2 or l1")
        for name, most in (("steps", 1000), ("epochs", 1000), ("images", 10_000_000), ("width", 1024)):
            check(name, getattr(self, name), 1, most, "a count")

    def around(self, net: nn.Module) -> Detector:
        return Watched(net, self.width)

    def fit(self, detector: Detector, trainer: Trainer, rows: Tensor, draws: Draws) -> None:
        count = min(self.images, len(rows))
        plan = Schedule(
            epochs=self.epochs,
            batch=min(128, count // 2),
            optimizer="adam",
            lr=2e-3,
            weight_decay=0,
            validation=max(1, count // 10),
        )
        wanted = [parameter.requires_grad for parameter in detector.net.parameters()]
        detector.net.requires_grad_(False)
        recipe = Telling(ThreatModel.parse(self.threat), self.steps)
        trainer.beside(plan, count).fit(detector, recipe, draws)
        for parameter, grad in zip(detector.net.parameters(), wanted, strict=True):
            parameter.requires_grad_(grad)


@dataclass(frozen=True)
class Telling(Recipe):
    """Clean images against those that PGD makes of them; the network that is watched stays as it is."""

    threat: ThreatModel
    steps: int

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        assert isinstance(net, Watched)
        x_adv = ascend(net.net, x, y, self.threat, draws, self.steps, 2.5 * self.threat.eps / self.steps)
        odds = net.odds(torch.cat([x, x_adv]))
        return F.binary_cross_entropy_with_logits(odds, (torch.arange(len(odds), device=x.device) >= len(x)).to(odds))
