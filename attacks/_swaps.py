"""Fewer pixels than the nearest success has: one pixel for another by gradients, with a tabu list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._sparser import first
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

OUT = 10  # steps that a pixel stays back, in the mean
IN = 0.3  # of the pixels' number: steps that a pixel stays changed, in the mean


@dataclass(frozen=True)
class Swaps(IterativeAttack):
    """A tabu search (Glover 1989) among images with one pixel less than the nearest success.

    Each step puts back the changed pixel on which the margin depends least, by first order. While the image is no
    success the unchanged pixel that raises it most goes to a corner of the colour cube, and the changed ones to the
    corners that their slopes say. Pixels that have just moved are tabu for a while, half as long to half as long again,
    so that the search leaves a set of pixels that no single exchange betters. It begins at the nearest success that the
    oracle remembers, and leaves alone who has none or has one of one pixel. Per image: `steps` forwards and backwards.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    minimises: ClassVar[bool] = True
    queries_last_iterate: ClassVar[bool] = True

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        near = oracle.best(x)
        chosen = (near != x).any(1).flatten(1)
        size = chosen.sum(1)
        free_from = x.new_zeros(chosen.shape)
        return {"x_adv": near, "chosen": chosen, "fewest": size, "free_from": free_from, "abandoned": size <= 1}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        chosen, size = state["chosen"], state["chosen"].sum(1)
        margin, slope, _ = oracle.grad(state["x_adv"], y, losses.named("margin", targeted=oracle.targeted))
        won = margin >= oracle.near_tie
        fewest = torch.where(won, torch.minimum(size, state["fewest"]), state["fewest"])
        aim = (fewest - 1).clamp_min(1)
        clean, image, tabu = x.flatten(2), state["x_adv"].flatten(2), state["free_from"] > i
        corner, new, back = picked(image, clean, slope.flatten(2), chosen, tabu, (~won).long(), size + ~won - aim)
        chosen = (chosen | new) & ~back
        length = draws.uniform(2) + 0.5
        free_from = torch.where(back, i + 1 + OUT * length[:, :1], state["free_from"])
        free_from = torch.where(new, i + 1 + IN * aim[:, None] * length[:, 1:], free_from)
        image = torch.where(chosen[:, None], torch.where(won[:, None, None], image, corner), clean).view_as(x)
        abandoned = state["abandoned"] | (fewest == 1)
        return {"x_adv": image, "chosen": chosen, "fewest": fewest, "free_from": free_from, "abandoned": abandoned}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, self.steps


def picked(
    image: Tensor, clean: Tensor, slope: Tensor, chosen: Tensor, tabu: Tensor, entering: Tensor, leaving: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The corners of the colour cube uphill, and which pixels enter and leave, by first order; none that is tabu.

    image, clean, slope (N, C, P): the pixels and what the margin's gradient says of them. chosen, tabu (N, P) bool.
    entering, leaving (N,): how many at most -> (N, C, P), and twice (N, P) bool.
    """
    slope = slope.nan_to_num()
    corner = torch.where(slope == 0, image, (slope > 0).to(image))
    gain, worth = (slope * (corner - image)).sum(1), (slope * (image - clean)).sum(1)
    new = first(gain.masked_fill(chosen | tabu, -torch.inf), entering) & ~chosen & ~tabu
    back = first((-worth).masked_fill(~chosen | tabu, -torch.inf), leaving) & chosen & ~tabu
    return corner, new, back
