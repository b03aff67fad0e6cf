"""The boundary attack: a random walk along the boundary, ever nearer to the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._decision import DecisionAttack, bisect, halvings, length, succeeds
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

PRECISION = 1e-3  # of the first search for the boundary


@dataclass(frozen=True)
class Boundary(DecisionAttack):
    """A step around the clean image, a step towards it, kept where it succeeds (Brendel et al. 2018, Algorithm 1).

    spherical and source are the lengths of the first steps around and towards, shares of the distance. As the paper
    proposes, they follow the rates of success: every tenth proposal is also asked before it turns to the clean image,
    and the step around grows where that succeeds and shrinks where not, to settle at half; the step towards settles
    where a quarter of the proposals succeed. 25,000 steps are the authors'.
    Cost: at most candidates + 10 + 1.1 steps + 1 forwards, no backwards.

    steps: proposals, at least 1. spherical: length of the first steps around, as a share of the distance, in (0, 1).
    source: that of the first steps towards the image, in (0, 1). adaptation: the factor by which steps grow and shrink,
    above 1.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})
    summary: ClassVar[str] = "a random walk along the boundary, by labels alone"
    paper: ClassVar[str] = "Brendel et al. 2018, arXiv:1712.04248"

    steps: int = 25_000
    spherical: float = 0.01
    source: float = 0.01
    adaptation: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.spherical < 1 or not 0 < self.source < 1:
            raise ConfigError(
                f"spherical is {self.spherical}, source {self.source}: both are shares of the distance, in (0, 1)"
            )
        if self.adaptation <= 1:
            raise ConfigError(f"adaptation is {self.adaptation}: the factor by which steps grow, above 1")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        x_adv, found = self.start(oracle, x, y, threat, draws.stream("start"))
        rows = found.nonzero()[:, 0]
        if len(rows):
            x_adv[rows] = bisect(oracle[rows], x[rows], y[rows], x_adv[rows], Norm.L2, PRECISION)
        size = x.new_ones(len(x))
        return {"x_adv": x_adv, "found": found, "around": self.spherical * size, "towards": self.source * size}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        rows = state["found"].nonzero()[:, 0]
        if not len(rows):
            return state
        mine = {name: value[rows] for name, value in state.items()}
        moved = self._walk(mine, oracle[rows], x[rows], y[rows], draws[rows], i)
        return {name: value.index_put((rows,), moved[name]) for name, value in state.items()}

    def _walk(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, draws: Draws, i: int) -> State:
        x_adv, around, towards = state["x_adv"], state["around"], state["towards"]
        delta = x_adv - x
        far = length(delta)
        noise = draws.normal(*x.shape[1:]).to(x)
        noise = noise - delta * (noise * delta).sum((1, 2, 3), keepdim=True) / far.square()  # orthogonal
        turned = delta + noise / length(noise) * far * around.view(-1, 1, 1, 1)
        turned = turned / length(turned) * far  # back onto the sphere
        proposal = (x + turned * (1 - towards.view(-1, 1, 1, 1))).clamp(0, 1)
        success = succeeds(oracle, proposal, y) & (length(proposal - x) < far).flatten()
        towards = towards * torch.where(success, self.adaptation**0.15, self.adaptation**-0.05)
        if i % 10 == 0:
            stays = succeeds(oracle, (x + turned).clamp(0, 1), y)
            around = around * torch.where(stays, self.adaptation, 1 / self.adaptation)
        return state | {
            "x_adv": torch.where(success.view(-1, 1, 1, 1), proposal, x_adv),
            "around": around.clamp_max(1.0),
            "towards": towards.clamp_max(0.5),
        }

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.candidates + halvings(PRECISION) + self.steps + (self.steps + 9) // 10 + 1, 0
