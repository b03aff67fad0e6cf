"""FAB, and climbs from where the line to its nearest image leaves the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_local.attacks.fab import FAB
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

CLASSES = 3  # that FAB goes for, each in a round
CLIMB = 25  # steps
FIRST = 0.5  # of eps: the first of them, the others get smaller evenly


@dataclass(frozen=True)
class Edge(IterativeAttack):
    """A round of FAB (Croce and Hein 2020) for each of the three nearest classes, with a climb at its end.

    Where a network masks its gradients inside the ball, FAB finds images a little outside it. From such an image,
    brought back to the edge, the margin's gradient often leads to one inside.

    steps: of a round, the 25 of its climb included, above 25. Per image that stays robust: 3 (2 steps - 23) forwards
    and 3 steps backwards.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    steps: int = 70 + CLIMB

    def rounds(self, oracle: Oracle) -> int:
        return min(CLASSES, oracle.classes - 1)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return self._fab().init(oracle, x, y, threat, draws, restart)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        j = i - self._fab().steps
        if j < 0:
            state = self._fab().step(state, oracle, x, y, threat, draws, i)
            return state if j + 1 else state | {"x_adv": threat.project(state["found"], x)}
        _, grad, _ = oracle.grad(state["x_adv"], y, losses.margin)
        return state | {"x_adv": threat.climb(state["x_adv"], grad, x, FIRST * (1 - j / CLIMB) * threat.eps)}

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        forwards, backwards = self._fab().cost(classes, norm)
        rounds = max(1, min(CLASSES, classes - 1))
        return forwards + rounds * (CLIMB + 1), backwards + rounds * CLIMB

    def _fab(self) -> FAB:
        return FAB(steps=self.steps - CLIMB, targets=CLASSES)
