"""Fewer pixels than the nearest success has: a random search for another success with some less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._random_search import settled
from robustbench_local.attacks.sparse_rs import corners
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

SHARE = (0.3, 0.05)  # of the changed pixels are exchanged: at first, and at the end
AT_ONCE = 10  # a success with k pixels puts max(k // 10, 1) of them back


@dataclass(frozen=True)
class Sparser(IterativeAttack):
    """After a success put a tenth of the pixels back, else exchange some, as Sparse-RS does (Croce et al. 2022).

    It begins at the nearest success that the oracle remembers, where there is none with all pixels in random colours.
    A proposal of as many pixels is kept where the margin does not fall: on plateaus the search goes on. It needs no
    gradients, so that masked ones do not stop it, and ends where one pixel is enough. Per image: `steps` forwards.
    """

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    minimises: ClassVar[bool] = True
    queries_last_iterate: ClassVar[bool] = True

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        near = oracle.best(x)
        chosen = (near != x).any(1).flatten(1)
        beaten = chosen.any(1)
        noise = corners(x.flatten(2), draws.stream("start")).view_as(x)
        return {
            "x_adv": torch.where(beaten.view(-1, 1, 1, 1), near, noise),
            "chosen": chosen | ~beaten[:, None],
            "margin": x.new_full((len(x),), -torch.inf),
            "beaten": beaten,
            "abandoned": chosen.sum(1) == 1,
        }

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        chosen, beaten, size = state["chosen"], state["beaten"], state["chosen"].sum(1)
        share = SHARE[0] * (SHARE[1] / SHARE[0]) ** (i / self.steps)
        exchanged = (share * size).long().clamp_min(1)
        back = torch.where(beaten, (size // AT_ONCE).clamp_min(1), exchanged)
        stay = chosen & ~first(draws.uniform(chosen.shape[1]).masked_fill(~chosen, -1), back)
        new = first(draws.uniform(chosen.shape[1]).masked_fill(stay, -1), torch.where(beaten, 0, exchanged))
        clean = x.flatten(2)
        image = torch.where(stay[:, None], state["x_adv"].flatten(2), clean)
        image = torch.where(new[:, None], corners(clean, draws), image).view_as(x)
        margin = losses.named("margin", targeted=oracle.targeted)(oracle.logits(image), y)
        won = margin >= oracle.near_tie
        margin = settled(margin, oracle.unit)
        kept = beaten | won | (margin >= state["margin"])
        chosen = torch.where(kept[:, None], stay | new, chosen)
        return {
            "x_adv": torch.where(kept.view(-1, 1, 1, 1), image, state["x_adv"]),
            "chosen": chosen,
            "margin": torch.where(kept, margin, state["margin"]),
            "beaten": won,
            "abandoned": state["abandoned"] | (won & (chosen.sum(1) == 1)),
        }

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, 0


def first(score: Tensor, count: Tensor) -> Tensor:
    """(N, P) bool: of each row of score (N, P) the count (N,) largest, the first of equals."""
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < count[:, None]
