"""Sparse-RS: random search over which pixels to change, and to which corner of the colour cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._random_search import RandomSearch, phase
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import Norm, ThreatModel

MARKS = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # for 10,000 proposals
DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)  # of alpha_init, before the first mark and after each


@dataclass(frozen=True)
class SparseRS(RandomSearch):
    """Put some changed pixels back, change as many others; keep that where the loss rises (Croce et al. 2022).

    The L0 form of their Algorithm 1: the k pixels of threat l0:k have all channels at 0 or 1. Proposal i exchanges
    max(floor(alpha_i * k), 1) of them, alpha falling from alpha_init to a twentieth on the paper's schedule, stretched
    to `steps`. Beyond the paper, a pixel put back may be chosen again in another colour (a lone pixel would otherwise
    be stuck in the right place with a wrong one), and of a colour that changes nothing the opposite is taken.

    steps: proposals, 10,000 as in the paper. alpha_init 0.3 without targets, targeted_alpha_init 0.1 with them; loss
    and targeted_loss likewise. Cost: restarts * (steps + 1) forwards, no backwards.

    alpha_init: the share of changed pixels that the first proposals exchange, in (0, 1]. targeted_alpha_init: the same
    with targets, in (0, 1].
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    summary: ClassVar[str] = "random search over sets of pixels, by scores alone"
    paper: ClassVar[str] = "Croce et al. 2022, arXiv:2006.12834"

    steps: int = 10_000
    alpha_init: float = 0.3
    targeted_alpha_init: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha_init", "targeted_alpha_init"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: a share of the changed pixels, in (0, 1]")

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> State:
        chosen = torch.zeros_like(x[:, 0], dtype=torch.bool).flatten(1)
        size = min(int(threat.eps), chosen.shape[1])
        return exchanged({"x_adv": x, "chosen": chosen}, x, draws, leaving=0, entering=size)

    def propose(self, state: State, x: Tensor, threat: ThreatModel, draws: Draws, i: int, *, targeted: bool) -> State:
        alpha = self.targeted_alpha_init if targeted else self.alpha_init
        alpha /= DIVISORS[phase(i, self.steps, MARKS)]
        size = min(max(int(alpha * threat.eps), 1), int(threat.eps), x[0, 0].numel())
        return exchanged(state, x, draws, leaving=size, entering=size)


def exchanged(state: State, x: Tensor, draws: Draws, leaving: int, entering: int) -> State:
    """Put so many random chosen pixels back to x, then so many unchosen ones to random corners of the colour cube."""
    before, clean, image = state["chosen"], x.flatten(2), state["x_adv"].flatten(2)
    out = draws.uniform(before.shape[1]).masked_fill(~before, -1).topk(leaving, dim=1).indices
    chosen = before.scatter(1, out, False)
    into = draws.uniform(chosen.shape[1]).masked_fill(chosen, -1).topk(entering, dim=1).indices
    out_all, into_all = (places[:, None].expand(-1, x.shape[1], -1) for places in (out, into))
    colour = corners(clean.gather(2, into_all), draws)
    image = image.scatter(2, out_all, clean.gather(2, out_all)).scatter(2, into_all, colour)
    return {"x_adv": image.view_as(x), "chosen": chosen.scatter(1, into, True)}


def corners(clean: Tensor, draws: Draws) -> Tensor:
    """Random corners of the colour cube for pixels whose clean colours are (N, C, P); of the clean one the opposite."""
    colour = draws.integers(2, *clean.shape[1:]).to(clean)
    idle = (colour == clean).all(1, keepdim=True)
    return torch.where(idle, 1 - colour, colour)
