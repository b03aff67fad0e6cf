"""The MNIST networks A to D between which Defense-GAN measures transfer (Samangouei et al. 2018, table 5).

Sizes, strides and padding are those of their code. So are the shares that its dropout keeps: what their table calls
Dropout(0.2) keeps a fifth there, which would explain why network B has 96.18 % where the others have above 99 %.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.draws import Draws


class Dropout(nn.Module):
    """In training keeps a share of the values, scaled up by its inverse.

    The masks are drawn from a counter that travels with the weights: training resumed draws what it would have drawn.
    """

    count: Tensor

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        draws = (
            Draws(0, torch.arange(len(x), device=x.device)).stream("dropout").with_counter(self.count.expand(len(x)))
        )
        self.count += 1
        return x * (draws.uniform(*x.shape[1:]) < self.keep) / self.keep


def _two_convolutions(first: nn.Conv2d, second: nn.Conv2d) -> nn.Module:
    return nn.Sequential(
        first,
        nn.ReLU(),
        second,
        nn.ReLU(),
        nn.Flatten(),
        Dropout(0.25),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        Dropout(0.5),
        nn.Linear(128, 10),
    )


def network_a() -> nn.Module:
    return _two_convolutions(nn.Conv2d(1, 64, 5, padding=2), nn.Conv2d(64, 64, 5, stride=2))


def network_b() -> nn.Module:
    return nn.Sequential(
        Dropout(0.2),
        nn.Conv2d(1, 64, 8, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv2d(64, 128, 6, stride=2),
        nn.ReLU(),
        nn.Conv2d(128, 128, 5),
        nn.ReLU(),
        Dropout(0.5),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def network_c() -> nn.Module:
    return _two_convolutions(nn.Conv2d(1, 128, 3, padding=1), nn.Conv2d(128, 64, 5, stride=2))


def network_d() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), Dropout(0.5), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )
