"""An epoch of training as a script of thirty lines would have it: what the package's own loop is held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Schedule


def epoch(net: nn.Module, images: Tensor, labels: Tensor, plan: Schedule, ball: ThreatModel | None, steps: int) -> None:
    """SGD over shuffled batches of images (N, C, H, W), mirrored and shifted; adversarial in an L∞ ball, if any.

    Nothing is validated, numbered, averaged or saved.
    """
    net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), plan.lr, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay)
    for rows in torch.randperm(len(images)).split(plan.batch):
        x, y = augmented(images[rows], plan.crop), labels[rows]
        if ball is not None:
            x = adversarial(net, x, y, ball.eps, steps)
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()


def augmented(x: Tensor, crop: int) -> Tensor:
    """Each image of x (N, C, H, W) mirrored by chance and shifted by up to `crop` pixels, channels last."""
    count, _, height, width = x.shape
    padded = F.pad(x, (crop,) * 4, mode="reflect")
    down = torch.arange(height) + torch.randint(2 * crop + 1, (count, 1))
    across = torch.arange(width).expand(count, -1)
    across = torch.where(torch.rand(count, 1) < 0.5, width - 1 - across, across)
    across = across + torch.randint(2 * crop + 1, (count, 1))
    each = torch.arange(count)[:, None, None]
    return padded[each, :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def adversarial(net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """PGD from a random start, in steps of 2.5 eps / steps (Madry et al. 2018)."""
    low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp_(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y, reduction="sum"), x_adv)
        x_adv = torch.clamp(x_adv.detach() + 2.5 * eps / steps * slope.sign(), low, high)
    return x_adv
