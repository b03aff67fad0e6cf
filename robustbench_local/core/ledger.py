"""What the samples of one batch have spent, and the best image that each was asked with."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.core.decision import near_tie, nearness
from robustbench_local.core.threat import Norm, ThreatModel

BOX = ThreatModel(Norm.NONE, 0.0)


class Ledger:
    """One batch's meter and memory, shared by every view of its oracle. All tensors are (N, ...)."""

    def __init__(
        self,
        x: Tensor,
        threat: ThreatModel,
        budget: int | None,
        *,
        stochastic: bool,
        minimises: bool,
        labels_only: bool = False,
    ) -> None:
        count = (len(x),)
        self.forwards = torch.zeros(count, dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.score = torch.full(count, -torch.inf, dtype=x.dtype, device=x.device)  # the margin of what is remembered
        self.distance = torch.zeros_like(self.score)  # the same's, where the attack minimises
        self.scale = torch.zeros_like(self.score)  # the largest size of any logits so far, see losses.size
        self.broken = torch.zeros(count, dtype=torch.bool, device=x.device)
        self.guided = torch.zeros_like(self.broken)  # a gradient of any use was seen
        self._all_guided = False
        self.x_adv = x.clone()
        self.budget = budget
        self.minimises = minimises
        self.classes: int | None = None
        self.notes: dict[str, Tensor] = {}
        self._threat, self._stochastic, self._labels_only = threat, stochastic, labels_only

    @property
    def near_tie(self) -> Tensor:
        """(N,) the margin below which a success is a near-tie, for logits of the size answered so far."""
        return near_tie(self.scale, labels_only=self._labels_only)

    def record_size(self, size: Tensor, rows: Tensor | None) -> None:
        """Logits of these sizes (M * P,) were answered; rows (M,) as in `remember`.

        Of two classes that nearly tie the answer alone tells no scale: all of the sample's answers do.
        """
        if not len(size):
            return
        size = size.view(len(self.scale) if rows is None else len(rows), -1).amax(1)
        if rows is None:
            torch.maximum(self.scale, size, out=self.scale)
        else:
            self.scale.scatter_reduce_(0, rows, size, "amax")

    def remember(self, x_adv: Tensor, margin: Tensor, x: Tensor, rows: Tensor | None) -> None:
        """Keep each sample's best image, of x_adv (M * P, C, H, W) with margins (M * P,), P in a row for each sample.

        x (M, C, H, W): their clean images. rows (M,): which samples they are, where one may come more than once; None:
        all in turn.
        """
        count = len(x)
        size = len(margin) // max(1, count)
        mine = slice(None) if rows is None else rows
        if self._stochastic and not self.minimises:  # a random model's best image need be no success
            index = (margin.view(count, size) > self.score[mine][:, None]).flatten().nonzero()[:, 0]
        else:
            index = (margin >= 0).nonzero()[:, 0]
        if not len(index):
            return
        tie = self.near_tie[mine]
        known = self._rank(self.score[mine], self.distance[mine], tie)
        there, far = torch.full_like(margin, -torch.inf), torch.zeros_like(margin)
        space = BOX if self.minimises else self._threat
        inside = space.contains(x_adv[index], x[index // size])
        there[index] = torch.where(inside, margin[index], -torch.inf)
        if self.minimises:
            far[index] = self._threat.distance(x_adv[index], x[index // size])
        rank = self._rank(there, far, tie.repeat_interleave(size))
        best = rank.view(count, size).max(1)
        better = (best.values > known).nonzero()[:, 0]
        if not len(better):
            return
        if rows is not None:  # of several images of one sample its best, the first of equals
            better = better[best.values[better].argsort(descending=True, stable=True)]
            order = rows[better].argsort(stable=True)
            first = rows[better][order].diff(prepend=rows.new_full((1,), -1)) != 0
            better = better[order[first]]
        at = better if rows is None else rows[better]
        chosen = better * size + best.indices[better]
        self.x_adv[at], self.score[at], self.distance[at] = x_adv[chosen], there[chosen], far[chosen]
        if not self._stochastic and not self.minimises:
            self.broken[at] |= there[chosen] >= tie[better]

    def record_gradient(self, grad: Tensor, rows: Tensor | None) -> None:
        """Note whose gradients (M, C, H, W) are of any use; rows as in `remember`. One that was is enough."""
        if self._all_guided:  # known without a question to the device
            return
        new = (~(self.guided if rows is None else self.guided[rows])).nonzero()[:, 0]
        if len(new):
            new = new[usable(grad[new])]
            self.guided[new if rows is None else rows[new]] = True
            self._all_guided = bool(self.guided.all())

    def _rank(self, margin: Tensor, distance: Tensor, tie: Tensor) -> Tensor:
        """(M,), larger is better: the margin; for a minimising attack nearness."""
        return nearness(margin, distance, tie) if self.minimises else margin


def usable(grad: Tensor) -> Tensor:
    """(M,) bool: the gradient (M, C, H, W) is finite, and not zero all over."""
    size = grad.abs().amax((1, 2, 3))  # NaN where any is
    return (size > 0) & (size < torch.inf)
