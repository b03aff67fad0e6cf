"""What the samples of one batch have spent, and the best image that each was asked with."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.threat import Norm, ThreatModel

BOX = ThreatModel(Norm.NONE, 0.0)
CLEARLY = 1e-4  # margin past the boundary, in logits, that ends a search: float32 kernels differ with batch shape


class Ledger:
    """One batch's meter and memory, shared by every view of its oracle. All tensors are (N, ...)."""

    def __init__(
        self, x: Tensor, threat: ThreatModel, budget: int | None, *, stochastic: bool, minimises: bool
    ) -> None:  # fmt: skip
        count = (len(x),)
        self.forwards = torch.zeros(count, dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.worth = torch.full(count, -torch.inf, dtype=x.dtype, device=x.device)  # of what is remembered: _worth
        self.fallen = torch.zeros(count, dtype=torch.bool, device=x.device)
        self.guided = torch.zeros_like(self.fallen)  # a gradient that led somewhere was seen
        self.x_adv = x.clone()
        self.budget = budget
        self.minimises = minimises
        self.classes: int | None = None
        self.notes: dict[str, Tensor] = {}
        self._threat, self._stochastic = threat, stochastic

    def remember(self, x_adv: Tensor, lead: Tensor, x: Tensor, rows: Tensor | None) -> None:
        """Keep each sample's best image, of x_adv (M * P, C, H, W) with leads (M * P,), P in a row for each sample.

        x (M, C, H, W): their clean images. rows (M,): which samples they are, where one may come more than once; None:
        all in turn.
        """
        count = len(x)
        size = len(lead) // max(1, count)
        known = self.worth if rows is None else self.worth[rows]
        if self._stochastic and not self.minimises:  # a random model's best image need not have won
            index = (lead.view(count, size) > known[:, None]).flatten().nonzero()[:, 0]
        else:
            index = (lead >= 0).nonzero()[:, 0]
        if not len(index):
            return
        worth = torch.full_like(lead, -torch.inf)
        worth[index] = self._worth(x_adv[index], x[index // size], lead[index])
        best = worth.view(count, size).max(1)
        better = (best.values > known).nonzero()[:, 0]
        if not len(better):
            return
        if rows is not None:  # of several images of one sample its best, the first of equals
            better = better[best.values[better].argsort(descending=True, stable=True)]
            order = rows[better].argsort(stable=True)
            first = rows[better][order].diff(prepend=rows.new_full((1,), -1)) != 0
            better = better[order[first]]
        at = better if rows is None else rows[better]
        self.worth[at] = best.values[better]
        self.x_adv[at] = x_adv[better * size + best.indices[better]]
        if not self._stochastic and not self.minimises:
            self.fallen[at] = best.values[better] >= CLEARLY

    def led(self, grad: Tensor, rows: Tensor | None) -> None:
        """Note whose gradients (M, C, H, W) are of any use; rows as in `remember`. One that was is enough."""
        new = (~(self.guided if rows is None else self.guided[rows])).nonzero()[:, 0]
        if len(new):
            new = new[usable(grad[new])]
            self.guided[new if rows is None else rows[new]] = True

    def _worth(self, x_adv: Tensor, x: Tensor, lead: Tensor) -> Tensor:
        """(M,): the lead, in the ball; for a minimising attack nearness, in the box; -inf: worth nothing.

        Nearness at distance d is 1 / d, and of a near-tie -d: any clear success is worth more than any near-tie, and
        within both the nearer more, to the last digit that d has.
        """
        if self.minimises:
            distance = self._threat.distance(x_adv, x)
            near = torch.where(lead < CLEARLY, -distance, 1 / distance)
            return torch.where(BOX.contains(x_adv, x), near, -torch.inf)
        return torch.where(self._threat.contains(x_adv, x), lead, -torch.inf)


def usable(grad: Tensor) -> Tensor:
    """(M,) bool: the gradient (M, C, H, W) is finite, and not zero all over."""
    size = grad.abs().amax((1, 2, 3))  # NaN where any is
    return (size > 0) & (size < torch.inf)
