"""Walks to the nearest adversarial image, and climbs from where the line to it leaves the ball."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

CLIMB = 25  # steps
FIRST = 0.5  # of eps: the first of them, the others get smaller evenly


@dataclass(frozen=True)
class Edge(IterativeAttack):
    """Rounds of an attack that looks for the nearest adversarial image, each with a climb at its end.

    Where a network masks its gradients inside the ball, such an attack finds images a little outside it. From its
    nearest one, brought back to the edge, the margin's gradient often leads to one inside.

    walk: the attack, whose own steps are of no effect: one gradient a step, and "nearest" in its state. steps: of a
    round, the 25 of its climb included, above 25. Per image that stays robust: what the walk's rounds cost, and for
    each 26 forwards and 25 backwards.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2, Norm.L1})

    steps: int = 70 + CLIMB
    walk: FAB | PDPGD = field(default_factory=PDPGD)

    def rounds(self, oracle: Oracle) -> int:
        return self.walk.rounds(oracle)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return self._walk().init(oracle, x, y, threat, draws, restart)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        j = i - self._walk().steps
        if j < 0:
            state = self._walk().step(state, oracle, x, y, threat, draws, i)
            return state if j + 1 else state | {"x_adv": threat.project(state["nearest"], x)}
        _, grad, _ = oracle.grad(state["x_adv"], y, losses.margin)
        return state | {"x_adv": threat.climb(state["x_adv"], grad, x, FIRST * (1 - j / CLIMB) * threat.eps)}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        walk = self._walk()
        forwards, backwards = walk.cost(classes, norm)
        rounds = backwards // walk.steps
        return forwards + rounds * (CLIMB + 1), backwards + rounds * CLIMB

    def _walk(self) -> FAB | PDPGD:
        return replace(self.walk, steps=self.steps - CLIMB)
