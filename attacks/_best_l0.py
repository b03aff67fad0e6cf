"""`best` in L0: one pixel for another, by gradients with a tabu list and then by scores, from several starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._exchange import learnt, proposed, unlearnt
from robustbench_local.attacks._random_search import settled
from robustbench_local.attacks._swaps import picked
from robustbench_local.attacks.sparse_rs import exchanged
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

STARTS = 10
LED = 0.025  # of the queries from each start ask for a gradient, and come first
AT_ONCE = 0.1  # of the k pixels are exchanged at first, in the end one
OUT = 10  # steps that a pixel stays back, in the mean
IN = 0.3  # of the k pixels: steps that a pixel stays changed, in the mean


@dataclass(frozen=True)
class PixelExchange(IterativeAttack):
    """From each start, k random pixels of threat l0:k in random colours, first a tabu search and then a random one.

    A step of the tabu search (Glover 1989) asks for the margin's gradient: by first order the pixel on which it depends
    least goes back, the one that raises it most goes to a corner of the colour cube, and the others to the corners that
    their slopes say. Pixels that have just moved are tabu for a while. The random search begins at the best point of
    these and keeps what raises cross-entropy, as Sparse-RS (Croce et al. 2022), but learns from what it tried: half of
    the new pixels are next to one of the k, few were tried before, and each takes the place of the pixel that counts
    least. Where gradients are true the first finds nearly all; where they are masked, the second.

    After s starts an image is given up where more than the share hopeless / sqrt(s) of its clean margin is left. Per
    image that is not: steps + 1 forwards, and a backward for each step of the tabu searches.

    hopeless: a share of the clean margin, above 0; inf gives no image up.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    queries_last_iterate: ClassVar[bool] = True

    hopeless: float = math.inf

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        none = torch.zeros_like(x[:, 0], dtype=torch.bool).flatten(1)
        low = x.new_full((len(x),), -torch.inf)
        state = {"x_adv": x, "chosen": none, "free_from": x.new_zeros(none.shape)}
        state |= {"best": x, "best_chosen": none, "loss": low, "margin": low} | unlearnt(x)
        state = _met(state, oracle.logits(x), oracle, y)
        return state | {"clean": state["margin"], "abandoned": torch.zeros_like(y, dtype=torch.bool)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        size, j = min(int(threat.eps), x[0, 0].numel()), i % self._turn
        if j == 0:
            state = state | self._fresh(state, x, draws.stream("start"), size)
        if j < self._led:
            state = self._swapped(state, oracle, x, y, draws, j, size)
        else:
            left = x[0, 0].numel() - size
            at_once = min(size, max(1, min(left, int(AT_ONCE * size * (1 - j / self._turn)))))
            proposal = proposed(state, x, draws, size, at_once)
            asked = state | {"x_adv": proposal["x_adv"], "chosen": proposal["chosen"]}
            asked = _met(asked, oracle.logits(asked["x_adv"]), oracle, y)
            state = asked | learnt(state, proposal, asked["last"] - state["loss"])
        if j + 1 < self._turn and i + 1 < self.steps:
            return state
        far = state["margin"] < self.hopeless * math.sqrt(self._turn / (i + 1)) * state["clean"]
        return state | {"x_adv": state["best"], "abandoned": far}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        turns, rest = divmod(self.steps, self._turn)
        return self.steps + 1, turns * self._led + min(rest, self._led)

    @property
    def _turn(self) -> int:
        """Queries from one start."""
        return math.ceil(self.steps / STARTS)

    @property
    def _led(self) -> int:
        return math.ceil(LED * self._turn)

    def _fresh(self, state: State, x: Tensor, draws: Draws, size: int) -> State:
        none = {"x_adv": x, "chosen": torch.zeros_like(state["chosen"])}
        fresh = exchanged(none, x, draws, leaving=0, entering=size)
        return fresh | {
            "loss": torch.full_like(state["loss"], -torch.inf),
            **unlearnt(x),
            "free_from": torch.zeros_like(state["free_from"]),
        }

    def _swapped(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, draws: Draws, j: int, size: int) -> State:
        """A step of the tabu search: as many pixels enter as leave."""
        margin = losses.named("margin", targeted=oracle.targeted)
        _, slope, logits = oracle.grad(state["x_adv"], y, margin)
        state = _met(state, logits, oracle, y)
        chosen, one, clean = state["chosen"], torch.ones_like(y), x.flatten(2)
        tabu = state["free_from"] > j
        corner, new, back = picked(state["x_adv"].flatten(2), clean, slope.flatten(2), chosen, tabu, one, one)
        both = new.any(1, keepdim=True) & back.any(1, keepdim=True)
        new, back = new & both, back & both
        chosen = (chosen | new) & ~back
        length = draws.uniform(2) + 0.5
        free_from = torch.where(back, j + 1 + OUT * length[:, :1], state["free_from"])
        free_from = torch.where(new, j + 1 + IN * (size - 1) * length[:, 1:], free_from)
        image = torch.where(chosen[:, None], corner, clean).view_as(x)
        return state | {"x_adv": image, "chosen": chosen, "free_from": free_from}


def _met(state: State, logits: Tensor, oracle: Oracle, y: Tensor) -> State:
    """What is known after the answer to x_adv: since the last start the best point, since the first the best margin."""
    margin, loss = (
        settled(losses.named(name, targeted=oracle.targeted)(logits, y), oracle.unit) for name in ("margin", "ce")
    )
    better = loss > state["loss"]
    return state | {
        "last": loss,
        "loss": torch.where(better, loss, state["loss"]),
        "best": torch.where(better.view(-1, 1, 1, 1), state["x_adv"], state["best"]),
        "best_chosen": torch.where(better[:, None], state["chosen"], state["best_chosen"]),
        "margin": torch.fmax(margin, state["margin"]),
    }
