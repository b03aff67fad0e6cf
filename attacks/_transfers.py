"""Nearer in L1 than the nearest success: a random search that hands the change of one coordinate to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._random_search import settled
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

SHRINK = (0.03, 0.003)  # of a success's distance is given up: at first, and at the end
DUST = 1e-4  # a smaller change is not worth handing on, and may be a last digit that depends on the batch
REACH = 2  # rows and columns that a neighbour is away at most
ROUNDING = 1e-5  # of eps, which a sum of many changes may be off by


@dataclass(frozen=True)
class Transfers(IterativeAttack):
    """A success gives up a little of one coordinate's change; then others hand theirs on until it is a success again.

    It begins at the nearest success that the oracle remembers, and leaves alone who has none. In a proposal one changed
    coordinate goes back to the clean image, and what the distance sought has room for goes to another, a third of the
    time each: one that is changed too, one next to such in its channel, any. It is kept where the margin does not fall:
    on plateaus the search goes on. What a network's first layer cuts off below some change and above another moves as
    a whole, so that masked gradients do not stop it. Per image: `steps` forwards.
    """

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})
    minimises: ClassVar[bool] = True
    queries_last_iterate: ClassVar[bool] = True

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        near = oracle.best(x)
        size = threat.distance(near, x)
        margin = x.new_full((len(x),), -torch.inf)
        return {"x_adv": near, "margin": margin, "aim": size, "beaten": size > 0, "abandoned": size == 0}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        image, beaten, aim = state["x_adv"].flatten(1), state["beaten"], state["aim"]
        clean, change = x.flatten(1), state["x_adv"].flatten(1) - x.flatten(1)
        size = change.abs().sum(1)
        giver, taker, way = _drawn(change, x, draws)
        held = change.gather(1, giver)
        less = SHRINK[0] * (SHRINK[1] / SHRINK[0]) ** (i / self.steps) * size
        given = torch.where(beaten[:, None], held.abs().minimum(less[:, None]), held.abs())
        image = image.scatter(1, giver, clean.gather(1, giver) + held.sign() * (held.abs() - given))
        aim = torch.where(beaten, size - given[:, 0], aim)

        image = _further(image, clean, taker, aim[:, None] - size[:, None] + given, way).view_as(x)

        margin = losses.named("margin", targeted=oracle.targeted)(oracle.logits(image), y)
        won = margin >= oracle.near_tie
        margin = settled(margin, oracle.unit)
        kept = beaten | won | (margin >= state["margin"])
        return {
            "x_adv": torch.where(kept.view(-1, 1, 1, 1), image, state["x_adv"]),
            "margin": torch.where(kept, margin, state["margin"]),
            "aim": aim,
            "beaten": won,
            "abandoned": state["abandoned"],
        }

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps, 0


def handed(x_adv: Tensor, x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    """One changed coordinate goes back to the clean image, and what the ball has room for then goes to another."""
    image, clean = x_adv.flatten(1), x.flatten(1)
    giver, taker, way = _drawn(image - clean, x, draws)
    image = image.scatter(1, giver, clean.gather(1, giver))
    room = (1 - ROUNDING) * threat.eps - (image - clean).abs().sum(1, keepdim=True)
    return _further(image, clean, taker, room, way).view_as(x)


def _drawn(change: Tensor, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 1) each: a changed coordinate, who takes what it hands on, and a draw in [0, 1).

    The other is, a third of the time each, one that is changed too, one next to such in its channel, any.
    """
    giver, centre = (
        draws.stream(name).uniform(change.shape[1]).masked_fill(change.abs() < DUST, -1).argmax(1, keepdim=True)
        for name in ("giver", "centre")
    )
    which, where, anywhere, way = draws.stream("taker").uniform(4).unsqueeze(2).unbind(1)
    elsewhere = (anywhere * change.shape[1]).long()
    taker = torch.where(which < 2 / 3, neighbour(centre, where, x), elsewhere)
    return giver, torch.where(which < 1 / 3, centre, taker), way


def _further(image: Tensor, clean: Tensor, taker: Tensor, by: Tensor, way: Tensor) -> Tensor:
    """Images (N, D) whose coordinate `taker` (N, 1) is further from the clean one, by so much as the box allows.

    One that is not changed goes up where `way` is at least its value, and else down.
    """
    value, start = image.gather(1, taker), clean.gather(1, taker)
    up = torch.where(value == start, way >= start, value > start)
    spare = by.clamp_min(0).minimum(torch.where(up, 1 - value, value))
    return image.scatter(1, taker, torch.where(up, value + spare, value - spare))


def neighbour(centre: Tensor, draw: Tensor, x: Tensor) -> Tensor:
    """(N, 1): for each coordinate (N, 1) of images like x one near it, itself included, by a draw in [0, 1)."""
    height, width = x.shape[2:]
    side = 2 * REACH + 1
    place = (draw * side**2).long()
    plane = centre // (height * width) * (height * width)
    row = (centre % (height * width) // width + place // side - REACH).clamp(0, height - 1)
    column = (centre % width + place % side - REACH).clamp(0, width - 1)
    return plane + row * width + column
