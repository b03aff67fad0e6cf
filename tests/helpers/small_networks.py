"""The specimens of rbl.testing, and more of their kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustbench_local.core.threat import Norm
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.testing.specimens import COUNT as COUNT
from robustbench_local.testing.specimens import THREATS
from robustbench_local.testing.specimens import Jittered as Jittered
from robustbench_local.testing.specimens import images as images
from robustbench_local.testing.specimens import network as network

LINF, L2 = THREATS[Norm.LINF], THREATS[Norm.L2]


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
