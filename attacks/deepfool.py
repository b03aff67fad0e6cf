"""DeepFool: walk to the nearest boundary of the linearised classifier, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._targets import MOST, contenders
from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

NUDGE = 1e-4  # added to every walk, as in the authors' code: otherwise what the box cuts off may never be made up for


@dataclass(frozen=True)
class DeepFool(Attack):
    """Moosavi-Dezfooli et al. 2016, algorithm 2, and its extension to L∞ in section 3.3.

    With f_k = z_k - z_y and its gradient w_k, class k begins at distance |f_k| / ||w_k||, in the dual norm, as far as
    the gradients see. The nearest class is walked to; the walks are summed and their sum is stretched by
    1 + overshoot. A sample stops where its label changes. Of more than 16 classes those of the largest logits are
    looked at in a step (the authors' code: 10 in all). Per image that stays robust: 2 forwards and K backwards a step.

    steps: at most so many walks to a boundary, at least 1. overshoot: the share by which the walks are stretched, at
    least 0.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2, Norm.LINF})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "to the nearest linearised boundary until the label changes"
    paper: ClassVar[str] = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"

    steps: int = 50
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        if self.overshoot < 0:
            raise ConfigError(f"overshoot is {self.overshoot}: it must be at least 0 (a share of the walk, 0.02)")

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        if oracle.targeted:
            raise ConfigError("deepfool goes to whichever class is nearest: it takes no targets")
        x_adv, walked = x.clone(), torch.zeros_like(x)
        rows = (~oracle.done).nonzero()[:, 0]
        for _ in range(self.steps):
            logits = oracle[rows].logits(x_adv[rows])
            robust = (losses.margin(logits, y[rows]) < oracle[rows].near_tie) & ~oracle[rows].done
            rows, logits = rows[robust], logits[robust]
            if not len(rows):
                break
            among = contenders(logits, y[rows])
            slopes, own = oracle[rows].jacobian(x_adv[rows], among)[0], (among == y[rows, None]).long().argmax(1)
            walked[rows] += _to_the_nearest(logits.gather(1, among), slopes, own, threat.norm)
            x_adv[rows] = (x[rows] + (1 + self.overshoot) * walked[rows]).clamp(0, 1)
        return oracle.best(x_adv)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 2 * self.steps, min(classes, MOST) * self.steps


def _to_the_nearest(logits: Tensor, slopes: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """(N, C, H, W): the shortest walk onto a boundary, were the classifier as linear as logits and slopes say."""
    row = torch.arange(len(y), device=y.device)
    gap = (logits - logits[row, y][:, None]).abs()
    normal = (slopes - slopes[row, y][:, None]).flatten(2)
    slope = normal.norm(p=2 if norm is Norm.L2 else 1, dim=2)
    distance = torch.where(slope > 0, gap / slope, torch.inf)  # class y has no slope to itself
    nearest = distance.argmin(1)
    normal, slope, distance = normal[row, nearest], slope[row, nearest][:, None], distance[row, nearest][:, None]
    unit = normal / slope if norm is Norm.L2 else normal.sign()
    return torch.where(slope > 0, (distance + NUDGE) * unit, 0).view(len(y), *slopes.shape[2:])
