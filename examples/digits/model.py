"""The network: 29,000 weights, pixels in [0, 1] in, ten logits out."""

from __future__ import annotations

from torch import Tensor, nn


class Digits(nn.Module):
    """Two convolutions and two linear layers for images (N, 1, 28, 28) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x - 0.5)
        return logits


class Coarse(nn.Module):
    """A network that sees five shades of grey. Rounding has no gradient: it blinds attacks and makes nothing robust."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x * 4).round() / 4)
        return logits
