"""Random search, as Square and Sparse-RS do it: propose a change, ask for its score, keep it where the loss rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

IN_LOGITS = ("ce", "margin")  # losses that are measured in logits


@dataclass(frozen=True)
class RandomSearch(IterativeAttack):
    """start and propose are the attack's own; what they return besides x_adv is kept or dropped together with it.

    steps: proposals. loss is raised without targets, targeted_loss with them.
    Cost: restarts * (steps + 1) forwards, no backwards.

    restarts: how many searches begin anew, at least 1. loss: what is raised without targets, ce, margin,
    probability_margin or dlr. targeted_loss: what is lowered with them, of the same.
    """

    access: ClassVar[Access] = Access.SCORES
    queries_last_iterate: ClassVar[bool] = True

    restarts: int = 1
    loss: str = "margin"
    targeted_loss: str = "ce"

    def __post_init__(self) -> None:
        check_counts(self, "steps", "restarts")
        losses.named(self.loss)
        losses.named(self.targeted_loss, targeted=True)

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> State:
        raise NotImplementedError

    def propose(self, state: State, x: Tensor, threat: ThreatModel, draws: Draws, i: int, *, targeted: bool) -> State:
        raise NotImplementedError

    def rounds(self, oracle: Oracle) -> int:
        return self.restarts

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return self._scored(self.start(x, threat, draws.stream("start")), oracle, y)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        proposal = self.propose(state, x, threat, draws, i, targeted=oracle.targeted)
        proposal = self._scored(proposal, oracle, y)
        better = proposal["loss"] > state["loss"]
        return {
            name: torch.where(better.view(-1, *[1] * (value.ndim - 1)), proposal[name], value)
            for name, value in state.items()
        }

    def _scored(self, state: State, oracle: Oracle, y: Tensor) -> State:
        name = self.targeted_loss if oracle.targeted else self.loss
        loss = losses.named(name, targeted=oracle.targeted)
        value = loss(oracle.logits(state["x_adv"]), y)
        return state | {"loss": settled(value, oracle.unit if name in IN_LOGITS else None)}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.restarts * (self.steps + 1), 0


def settled(score: Tensor, unit: Tensor | None = None) -> Tensor:
    """Without the last digits, which depend on the shape of the batch: what ties must tie in any company.

    unit: of the logits (oracle.unit), where the score is a difference of them.
    """
    # in float64 coarser than digits need: of logits up to 32 times smaller than usual, see losses.unit, 2e-12 is noise
    step = 1e-9 if score.dtype == torch.float64 else torch.finfo(score.dtype).eps ** 0.75  # 6e-6 in float32
    return (score / step).round() * step if unit is None else settled(score / unit) * unit


def phase(i: int, steps: int, ends: Sequence[int]) -> int:
    """How many of a schedule's marks, given for 10,000 proposals, lie behind proposal i of `steps`."""
    return sum(10_000 * i // steps > end for end in ends)
