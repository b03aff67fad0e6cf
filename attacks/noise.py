"""Random noise in the ball: the control that every attack must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Noise(Attack):
    """One point drawn uniformly in the ball (L0: positions and colours), without asking the model anything."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm) - {Norm.NONE}
    summary: ClassVar[str] = "one random point of the ball: the control"

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return threat.start(x, draws)
