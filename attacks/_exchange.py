"""One pixel for another, by what the scores of the exchanges before have shown."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks.sparse_rs import corners
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws

NEAR = 0.5  # of the pixels that are tried are next to one of the k
AGAIN = 0.25  # how often a pixel is tried once more, beside one that was tried once less
RECENT = 0.2  # the weight of the newest exchange in what a pixel is worth


def unlearnt(x: Tensor) -> State:
    """Before any exchange, (N, P): what the loss does without a pixel is unknown, and none was tried."""
    unknown = torch.full_like(x[:, 0].flatten(1), torch.inf)
    return {"without": unknown, "tried": torch.zeros_like(unknown)}


def proposed(state: State, x: Tensor, draws: Draws, size: int, at_once: int) -> State:
    """The best point with `at_once` of its `size` pixels exchanged: x_adv, chosen, and the places `entered` and `left`.

    What enters is random, half of it next to one of the k, and what was tried since the best point was found is tried
    again a quarter as often each time. It takes the place of the pixel without which the loss was highest so far, where
    it was tried before that of the next, so that hardly an exchange comes twice; pixels of which nothing is known leave
    first. One at a time, it may be one of the k: that gets another colour, where there is one.
    """
    before, image, clean = state["best_chosen"], state["best"].flatten(2), x.flatten(2)
    lasting = before
    if at_once == 1:  # of one channel and a clean black or white there is no third colour
        lasting = before & ((clean == 0) | (clean == 1)).all(1) & (x.shape[1] == 1)
    around = F.max_pool2d(before.to(x).view_as(x[:, :1]), 3, stride=1, padding=1).flatten(1).masked_fill(lasting, 0)
    odds = 1 - NEAR + NEAR * around * around.shape[1] / around.sum(1, keepdim=True).clamp_min(1)
    luck = -(-draws.uniform(before.shape[1]).log()).log()  # Gumbel's, by which the largest sum is drawn by its odds
    drawn = odds.log() + math.log(AGAIN) * state["tried"] + luck
    entered = drawn.masked_fill(lasting, -torch.inf).topk(at_once, dim=1).indices
    places = (before * torch.arange(before.shape[1], 0, -1, device=x.device)).topk(size, dim=1).indices
    order = places.gather(1, state["without"].gather(1, places).argsort(dim=1, descending=True, stable=True))
    turn = state["tried"].gather(1, entered[:, :1]).long() + torch.arange(at_once, device=x.device)
    left = order.gather(1, turn % size)
    if at_once == 1:
        left = torch.where(before.gather(1, entered), entered, left)
    in_all, out_all = (each[:, None].expand(-1, x.shape[1], -1) for each in (entered, left))
    colour = corners(clean.gather(2, in_all), draws)
    image = image.scatter(2, out_all, clean.gather(2, out_all)).scatter(2, in_all, colour)
    chosen = before.scatter(1, left, False).scatter(1, entered, True)
    return {"x_adv": image.view_as(x), "chosen": chosen, "entered": entered, "left": left}


def learnt(state: State, proposal: State, gain: Tensor) -> State:
    """What is known after the answer to a proposal, of which the loss rose by gain (N,) over the best point's."""
    entered, left, better = proposal["entered"], proposal["left"], gain[:, None] > 0
    old = state["without"].gather(1, left)
    new = torch.where(old == torch.inf, gain[:, None], torch.lerp(old, gain[:, None].expand_as(old), RECENT))
    without = state["without"].scatter(1, left, new)
    tried = state["tried"].scatter_add(1, entered, torch.ones_like(new))
    return {
        "without": torch.where(better, without.scatter(1, entered, torch.inf), without),
        "tried": torch.where(better, 0, tried),
    }
