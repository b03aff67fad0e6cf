"""The least change on the way from an image to its adversarial twin that still brings the twin's answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 8  # the answer is known to a 256th of the way


def least_change(ask: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(images (N, C, H, W), answers (N,), found (N,) bool): by bisection of the straight way from x to x_adv.

    ask: answers (N,) to images. It is a counterfactual, and an upper bound of the nearest one: others may lie nearer,
    in another direction. Not found where x and x_adv are answered alike.
    """
    goal = ask(x_adv)
    found = goal != ask(x)
    right, wrong = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
    for _ in range(HALVINGS):
        middle = (right + wrong) / 2
        reached = ask(_between(x, x_adv, middle)) == goal
        right, wrong = torch.where(reached, right, middle), torch.where(reached, middle, wrong)
    return torch.where(found.view(-1, 1, 1, 1), _between(x, x_adv, wrong), x_adv), goal, found


def _between(x: Tensor, x_adv: Tensor, share: Tensor) -> Tensor:
    return x + share.to(x).view(-1, 1, 1, 1) * (x_adv - x)
