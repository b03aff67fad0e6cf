"""A tiny model file, its images and a suite, for checks of regression that take a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

COUNT, EPS = 60, "linf:0.08"
MASKED = """
class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return 1000 * self.net(x)

class Quantised(Scaled):
    def forward(self, x):
        return self.net((x * GREYS).round() / GREYS)

class Detached(Scaled):
    def forward(self, x):
        return self.net(x.detach()) + 0 * x.sum((1, 2, 3))[:, None]
"""
MODEL = """
import torch
from torch import nn

WEIGHTS, GREYS = torch.randn(3, 64, generator=torch.Generator().manual_seed(3)), 64

def linear(weights):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(weights)
    return net.eval()

def net():
    return linear(WEIGHTS)

def worse():
    return linear(WEIGHTS + 0.8 * torch.randn(3, 64, generator=torch.Generator().manual_seed(4)))
"""
SUITE = "data: mnist\nmodels: mnist_small\nattacks: [{pgd: {steps: 8, loss: ce}}]\n"


def weights() -> Tensor:
    """(3, 64), those of `net`."""
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(3))


def margins(x: Tensor) -> Tensor:
    """(N, 3) logits of `net` on images (N, 1, 8, 8)."""
    return x.flatten(1) @ weights().T


def folder(path: Path) -> Path:
    """A folder that holds models.py, images.npz with labels as `net` sees them, and suite.yaml."""
    (path / "models.py").write_text(MODEL + MASKED)
    (path / "suite.yaml").write_text(SUITE)
    pixels = torch.randint(0, 256, (COUNT, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.savez(path / "images.npz", x=pixels.numpy(), y=margins(pixels.float() / 255).argmax(1).numpy())
    return path


def asking(model: str = "net", **settings: object) -> dict[str, object]:
    """The settings of a check of one of these models; its name stays, whichever it is."""
    about = {"data": "arrays:images.npz", "threat": EPS, "suite": "suite.yaml", "name": "net"}
    return {"model": f"models.py:{model}", **about, **settings}
