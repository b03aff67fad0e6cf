"""What a case is, and what most of them are built on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import load_data, load_model
from robustbench_local.core.attack import Attack


@dataclass(frozen=True)
class Case:
    """What is audited: a model, the attack that evaluates it (None: the audit's own), and what it is shown.

    x (N, C, H, W), y (N,), threat, classes: of the images, where they are not the 60 of MNIST within linf:0.3.
    """

    model: nn.Module
    attack: Attack | None = None
    x: Tensor | None = None
    y: Tensor | None = None
    threat: str | None = None
    classes: int | None = None


Make = Callable[[Tensor, Tensor], Case]


@dataclass(frozen=True)
class Liar:
    """make(x, y): the case. causes: checks that name its fault, of which any one will do. fault: in words."""

    make: Make
    causes: tuple[str, ...]
    fault: str = ""


def zoo(name: str) -> nn.Module:
    """A network of the zoo, of the bundled MNIST weights."""
    return load_model(f"zoo:mnist/{name}")


def trained(
    net: nn.Module, *, data: str = "mnist", steps: int = 150, lr: float = 2e-3, seed: int = 0, eps: float = 0.0
) -> nn.Module:
    """net, trained for seconds on bundled images by Adam; eps: of one adversarial step per batch, 0 for none."""
    x, y = load_data(data, split="train", source="bundled")
    dice = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=dice)
        images = x[rows]
        if eps:
            images = (images + eps * (2 * torch.rand(images.shape, generator=dice) - 1)).clamp(0, 1).requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(net(images), y[rows]), images)
            moved = images.detach() + 1.25 * eps * slope.sign()
            images = torch.minimum(torch.maximum(moved, x[rows] - eps), x[rows] + eps).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(net(images), y[rows]).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)
