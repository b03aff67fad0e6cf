"""Jacobian-based saliency maps: change the two features that help most, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._targets import MOST
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class JSMA(Attack):
    """Papernot et al. 2016, algorithms 2 and 3, on the logits; without targets Wiyatno and Xu 2018 (arXiv:1808.07945).

    Of all pairs of features that raise the target's logit and lower the sum of all others, the one whose product of
    both effects is largest moves by theta; without targets the true class's logit is to fall and the others to rise. A
    feature at the end of its range is out. It ends with success, with no such pair left, or with a share gamma of all
    features changed. L0 counts pixel positions: a colour image's features may share one. With `saliency: slope` the two
    features that help the target's logit most (or hurt the true one) move, whatever the others do, as in ART. Per image
    that stays robust, and D features, gamma * D / 2 times: a forward and K backwards, one of them for `slope`; of more
    than 16 classes two of both.

    theta: how far a feature moves, in [-1, 1] and not 0. gamma: the share of features that may change, in (0, 1].
    saliency: pairs, or slope as above.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "few features, two at a time, by saliency"
    paper: ClassVar[str] = "Papernot et al. 2016, arXiv:1511.07528"

    theta: float = 1.0
    gamma: float = 0.145
    saliency: str = "pairs"

    def __post_init__(self) -> None:
        if not 0 < abs(self.theta) <= 1:
            raise ConfigError(f"theta is {self.theta}: how far a feature moves, in [-1, 1] and not 0")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma is {self.gamma}: the share of features that may change, in (0, 1]")
        if self.saliency not in ("pairs", "slope"):
            raise ConfigError(f"saliency is {self.saliency!r}: pairs or slope")

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        margin = losses.named("margin", targeted=oracle.targeted)
        x_adv = x.clone()
        rows = (~oracle.done).nonzero()[:, 0]
        for _ in range(int(self.gamma * x[0].numel() / 2)):
            if not len(rows):
                break
            pair, found, logits = self._pair(oracle[rows], x_adv[rows], y[rows])
            moves = found & (margin(logits, y[rows]) < oracle[rows].near_tie) & ~oracle[rows].done
            rows, pair = rows[moves], pair[moves]
            flat = x_adv[rows].flatten(1)
            x_adv[rows] = flat.scatter_add(1, pair, torch.full_like(flat, self.theta)).clamp(0, 1).view_as(x[rows])
        return oracle.best(x_adv)

    def _pair(self, oracle: Oracle, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two features that move (N, 2), if there are two (N,), and the logits (N, K)."""
        flat = x.flatten(1)
        free = flat < 1 if self.theta > 0 else flat > 0
        sign = 1 if oracle.targeted == (self.theta > 0) else -1
        if self.saliency == "slope":
            _, slope, logits = oracle.grad(x, y, own_logit)
            help_of, pair = torch.where(free, sign * slope.flatten(1), -torch.inf).topk(2)
            return pair, help_of[:, 1] > -torch.inf, logits
        if oracle.classes > MOST:  # all that is needed of so many gradients is their sum
            _, total, _ = oracle.grad(x, y, lambda logits, _: logits.sum(1))
            _, goal, logits = oracle.grad(x, y, own_logit)
        else:
            slopes, logits = oracle.jacobian(x)
            goal, total = slopes[torch.arange(len(x), device=x.device), y], slopes.sum(1)
        goal, total = goal.flatten(1), total.flatten(1)
        return *best_pair(sign * goal, sign * (goal - total), free), logits

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        steps = int(self.gamma * 784 / 2)  # of an image of 28x28
        if self.saliency == "slope":
            return steps, steps
        return (2 * steps, 2 * steps) if classes > MOST else (steps, steps * classes)


def own_logit(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None])[:, 0]


def best_pair(rise: Tensor, fall: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2): the free features p, q of largest (rise_p + rise_q)(fall_p + fall_q), both sums above 0; (N,): if any.

    All three are (N, D). A feature beside two others that both rise and fall at least as much is in no best pair,
    and few are left: those are tried against each other, instead of D² pairs.
    """
    rise, fall = (torch.where(free, value / value.abs().amax(1, keepdim=True), -torch.inf) for value in (rise, fall))
    rise, order = rise.sort(dim=1, descending=True, stable=True)
    fall = fall.gather(1, order)
    lowest = torch.full_like(fall[:, :1], -torch.inf)
    loser = torch.minimum(fall, torch.cat([lowest, fall.cummax(1).values[:, :-1]], 1))
    second = torch.cat([lowest, loser.cummax(1).values[:, :-1]], 1)  # the second highest fall among all before
    stays = fall > second
    few = stays.int().argsort(dim=1, descending=True, stable=True)[:, : int(stays.sum(1).amax().clamp_min(2))]
    stays, rise, fall, order = (value.gather(1, few) for value in (stays, rise, fall, order))
    rise, fall = (torch.where(stays, value, -torch.inf) for value in (rise, fall))
    rises, falls = rise[:, :, None] + rise[:, None], fall[:, :, None] + fall[:, None]
    saliency = torch.where((rises > 0) & (falls > 0), rises * falls, 0).triu(1).flatten(1)
    best = saliency.max(1)
    first, other = best.indices // few.shape[1], best.indices % few.shape[1]
    return order.gather(1, torch.stack([first, other], 1)), best.values > 0
