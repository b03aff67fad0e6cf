"""Small networks of any form, trained in seconds on the bundled images, plainly or adversarially."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import load_data
from robustbench_local.core.model_state import evaluating


def trained(
    net: nn.Module,
    *,
    eps: float = 0.0,
    epochs: int = 8,
    lr: float = 2e-3,
    data: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> nn.Module:
    """net, trained in place by Adam, in evaluation mode. Its first weights are the caller's to seed.

    eps: above 0, on adversarial images of three steps of PGD in that L-infinity ball (Madry et al. 2018). data: images
    and labels; None: the 2,000 bundled training images of MNIST.
    """
    x, y = load_data("mnist", split="train", n=2000, source="bundled") if data is None else data
    dice = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    net.train()
    for epoch in range(epochs):
        for rows in torch.randperm(len(x), generator=dice).split(64):
            own, labels = x[rows], y[rows]
            if eps:
                own = _attacked(net, own, labels, eps * min(1, (epoch + 1) / (epochs / 2)), dice)
            optimizer.zero_grad()
            F.cross_entropy(net(own), labels).backward()
            optimizer.step()
    return evaluating(net)


def _attacked(net: nn.Module, x: Tensor, y: Tensor, eps: float, dice: torch.Generator) -> Tensor:
    """The ball grows over the first half of the epochs, without which nothing is learnt at a large eps."""
    moved = torch.empty_like(x).uniform_(-eps, eps, generator=dice)
    for _ in range(3):
        moved.requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(net((x + moved).clamp(0, 1)), y), moved)[0]
        moved = (moved.detach() + eps / 2 * slope.sign()).clamp(-eps, eps)
    return (x + moved).clamp(0, 1)
