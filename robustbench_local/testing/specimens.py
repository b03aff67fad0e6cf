"""Tiny models and images on which a plug-in is tried: a random network, a random defense, a planted weakness."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import Tensors

COUNT = 30
# balls in which some images of `images` fall to `network` and some do not
THREATS = {
    Norm.LINF: ThreatModel(Norm.LINF, 0.03),
    Norm.L2: ThreatModel(Norm.L2, 0.2),
    Norm.L1: ThreatModel(Norm.L1, 1.5),
    Norm.L0: ThreatModel(Norm.L0, 2),
    Norm.NONE: ThreatModel(Norm.NONE, 0),
}


def network(seed: int = 0) -> nn.Sequential:
    """A small random network with batch norm and dropout, 4 classes, images of 3x8x8."""
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 4)
        ).eval()


def images(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensors:
    """Random images labelled as the network sees them, but every sixth wrongly."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(COUNT, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        y = model.to(dtype)(x).argmax(1)
    y[::6] = (y[::6] + 1) % 4
    return Tensors(x, y, torch.arange(100, 100 + COUNT))


class Jittered(Defended):
    """A random defense: every draw shifts the image a little."""

    stochastic = True

    def __init__(self, net: nn.Module, size: float = 0.02) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        answer: Tensor = self.net(x + self.size * draws.normal(*x.shape[1:]).to(x))
        return answer


class Stubborn(nn.Module):
    """Class 0, come what may, by scores with a gradient that leads nowhere: no image of it ever falls."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)
        return torch.stack([8 + bright, bright, 0.5 * bright, 0 * bright], 1)


class Planted(nn.Module):
    """A linear model whose weakness is known: class 1 where the mean brightness is above 0.5, class 0 below; 2 never.

    The nearest adversarial image of one of mean 0.5 - gap moves every value by gap (in L∞ and L2).
    """

    def forward(self, x: Tensor) -> Tensor:
        bright = 16 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-bright, bright, 0 * bright - 16], 1)


def planted(gap: float, both: bool = False, count: int = 16) -> Tensors:
    """Images (count, 3, 8, 8) of class 0 of `Planted`, of mean brightness 0.5 - gap; both: every other as far above."""
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(7)) * 0.2 + 0.4
    y = torch.arange(count) % 2 if both else torch.zeros(count, dtype=torch.int64)
    middle = 0.5 + gap * (2 * y - 1)
    x += (middle - x.flatten(1).mean(1)).view(-1, 1, 1, 1)
    return Tensors(x, y, torch.arange(count))


def reach(threat: ThreatModel) -> float:
    """By how much the mean brightness of a `planted` image can be moved in this ball."""
    values = 3 * 8 * 8
    match threat.norm:
        case Norm.LINF:
            return threat.eps
        case Norm.L2:
            return threat.eps / math.sqrt(values)
        case Norm.L1:
            return threat.eps / values
        case Norm.L0:
            return 0.4 * threat.eps / values  # of a pixel's three values one or more, each 0.4 or more from white
    return 0.1
