"""Smallest perturbation by penalty: what CW and EAD share is the search for the constant c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel

SHORTEST = 10  # steps without progress before a search is left: with five, single images were left too soon
PROGRESS = 0.9999  # times the lowest objective so far is what counts as progress, when a search gets below it


@dataclass(frozen=True)
class PenaltyAttack(Attack):
    """Minimise size(x_adv - x) + c * max(0, confidence - margin(x_adv)), with the smallest c that succeeds.

    c starts at `constant`; it grows tenfold until a search succeeds and is bisected from then on, `searches` times
    in all, each sample by itself (Carlini and Wagner 2017, sections 5 and 6). c counts in a unit that is taken from the
    clean image's answer, so that logits may have any size. abort_early ends a sample's search once its lowest objective
    came down by less than 0.01 % in `patience` of its steps, and in ten at least. confidence is a margin in logits,
    never below what the oracle counts as clear. Of all that reached it, the smallest is given back.

    steps: how many each search takes, at least 1. searches: how often c is chosen anew, at least 1. constant: the first
    c, above 0. step_size: of the optimiser, above 0. confidence: the margin that counts as success, in logits, at least
    0. abort_early: whether a search that no longer gets on is ended.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    minimises: ClassVar[bool] = True
    version: ClassVar[int] = 3
    patience: ClassVar[float] = 0.1

    steps: int = 10_000
    searches: int = 9
    constant: float = 1e-3
    step_size: float = 0.01
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_counts(self, "steps", "searches")
        for name in ("constant", "step_size"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.confidence < 0:
            raise ConfigError(f"confidence is {self.confidence}: a margin in logits, at least 0")

    def begin(self, x: Tensor) -> State:
        """The state before the first step of a search."""
        raise NotImplementedError

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, c: Tensor, goal: Tensor, i: int
    ) -> tuple[State, Tensor, Tensor]:
        """Step i with constants c (N, 1, 1, 1), in the attack's unit, towards margins `goal` (N,) -> state with its
        x_adv, objective (N,), margin of x_adv (N,).
        """
        raise NotImplementedError

    def size(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,): what is to be small."""
        raise NotImplementedError

    def margin(self, oracle: Oracle, goal: Tensor) -> Loss:
        """The margin up to the goal, beyond which there is nothing to gain."""
        margin = losses.named("margin", targeted=oracle.targeted)
        return lambda logits, y: margin(logits, y).clamp_max(goal)

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        best, smallest = x.clone(), x.new_full((len(x),), torch.inf)
        c, low, high = (x.new_full((len(x),), value) for value in (self.constant, 0.0, torch.inf))
        for _ in range(self.searches):
            rows = (~oracle.done).nonzero()[:, 0]
            if not len(rows):
                break
            found, size = self._search(oracle[rows], x[rows], y[rows], c[rows])
            smaller = size < smallest[rows]
            best[rows[smaller]], smallest[rows[smaller]] = found[smaller], size[smaller]
            high[rows] = torch.where(size < torch.inf, c[rows], high[rows])
            low[rows] = torch.where(size < torch.inf, low[rows], c[rows])
            c = torch.where(high < torch.inf, (low + high) / 2, 10 * c)
        ours = (smallest < torch.inf) & ~oracle.broken
        return torch.where(ours.view(-1, 1, 1, 1), best, oracle.best(x))

    def _search(self, oracle: Oracle, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """(smallest success, its size (N,), infinite where there is none) with these constants."""
        best, smallest = x.clone(), x.new_full((len(x),), torch.inf)
        rows = torch.arange(len(x), device=x.device)
        lowest, since = torch.full_like(smallest, torch.inf), torch.zeros_like(rows)
        state = self.begin(x)
        for i in range(self.steps):
            goal = oracle.near_tie.clamp_min(self.confidence)
            state, objective, margin = self.step(state, oracle, x, y, c.view(-1, 1, 1, 1), goal, i)
            size = torch.where(margin >= goal, self.size(state["x_adv"], x), torch.inf)
            smaller = (size < smallest[rows]).nonzero()[:, 0]
            best[rows[smaller]], smallest[rows[smaller]] = state["x_adv"][smaller], size[smaller]
            progress = objective < PROGRESS * lowest
            lowest, since = torch.where(progress, objective, lowest), torch.where(progress, i, since)
            leaving = oracle.done
            if self.abort_early:
                leaving = leaving | (i - since >= max(SHORTEST, self.patience * self.steps))
            if leaving.any():
                stay = (~leaving).nonzero()[:, 0]
                if not len(stay):
                    break
                state = {name: value[stay] for name, value in state.items()}
                rows, oracle, x, y, c = rows[stay], oracle[stay], x[stay], y[stay], c[stay]
                lowest, since = lowest[stay], since[stay]
        return best, smallest
