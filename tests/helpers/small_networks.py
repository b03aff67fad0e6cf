"""A small random network, a random defense around it, and images labelled as it sees them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors

LINF, L2 = ThreatModel.parse("linf:0.03"), ThreatModel.parse("l2:0.2")
COUNT = 30


def network(seed: int = 0) -> nn.Sequential:
    """A small random network with batch norm and dropout, 4 classes, images of 3x8x8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 4)
        ).eval()


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


def images(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensors:
    """Random images labelled as the network sees them, but every sixth wrongly."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(COUNT, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        y = model.to(dtype)(x).argmax(1)
    y[::6] = (y[::6] + 1) % 4
    return Tensors(x, y, torch.arange(100, 100 + COUNT))


def chosen(data: Tensors, rows: Tensor) -> Tensors:
    return Tensors(data.x[rows], data.labels[rows], data.ids[rows])


MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {"deterministic": lambda net: net, "random": Jittered}


class AnySize(nn.Module):
    """The mean of what a convolution sees: a network for images of any size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.classes = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classes(self.conv(x).relu().mean((2, 3)))
        return out


def layer(net: nn.Module, place: int) -> nn.Linear:
    """The linear layer at that place of a sequence, counted from its end where negative."""
    assert isinstance(net, nn.Sequential)
    found = net[place]
    assert isinstance(found, nn.Linear)
    return found
