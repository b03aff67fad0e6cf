"""Shared weaknesses: is a random model's mean over draws what an attacker meets who hands in the same image again?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_local.audit.check import check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, sound, suspicious, unchecked
from robustbench_local.audit.subject import Subject
from robustbench_local.core import resubmission
from robustbench_local.core.access import Access
from robustbench_local.core.defense import Defended, call, rejection
from robustbench_local.core.draws import Draws
from robustbench_local.storage.row import robust_shares

GAP = 0.05  # five points that are there by luck, each time anew


class Fixed(Defended):
    """A random model whose numbers are the same in every query, for all images: what is left of it without its luck."""

    def __init__(self, net: nn.Module, seed: int) -> None:
        super().__init__()
        self.net, self.seed, self.rejects = net, seed, rejection(net)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        alike = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return call(self.net, x, Draws(self.seed, alike, dtype=x.dtype).stream("fixed"))


def _compared(mean: float, again: float, besides: str = "", **figures: float) -> Result:
    text = (
        f"{100 * mean:.1f} % are robust in the mean over draws, {100 * again:.1f} % where {resubmission.TRIES} draws in"
        f" a row have to be right{besides}"
    )
    return (suspicious if mean - again > GAP else sound)(text, mean=mean, worst_of_ten=again, **figures)


def _of_all_attacks(rows: Rows) -> Iterator[Result]:
    """Of the worst case: an attack that hardly came near leaves images on which luck decides."""
    means: list[npt.NDArray[np.float64]] = []
    again: list[npt.NDArray[np.float64]] = []
    for each in rows:
        if not each.row.stochastic or "bits" not in each.arrays or each.access is Access.NONE or not each.adaptive:
            continue
        shares, draws = robust_shares(each.arrays), each.arrays["bits"].shape[1]
        if (withstood := resubmission.withstands(shares, draws)) is not None:
            means.append(shares)
            again.append(withstood)
    if means:
        yield _compared(float(np.minimum.reduce(means).mean()), float(np.minimum.reduce(again).mean()))


@check(
    "unshared draws",
    source="Wang et al. 2024 (DiffHammer), NeurIPS; Liu and Wei 2025, arXiv:2505.22839 (the randomness fixed)",
    advice="report the worst of ten draws beside the mean: who may ask again needs one wrong answer only",
    of_rows=_of_all_attacks,
)
def unshared(subject: Subject) -> Result:
    """Whether more than five points of the figure are luck: right in the mean, and wrong once in ten draws.

    Beside it stands the same attack on the same model with its numbers fixed: how much of the figure is owed to their
    being drawn anew.
    """
    if not subject.random:
        return unchecked("the model is not random")
    verdict = subject.run(subject.evaluation)
    if verdict is None or verdict.worst_of_ten is None:
        return unchecked("no attack can run on this model")
    fixed = subject.run(subject.evaluation, model=Fixed(subject.deployed, subject.seed), tag="fixed")
    if fixed is None:
        return _compared(verdict.robust_accuracy, verdict.worst_of_ten)
    left = fixed.robust_accuracy
    besides = f"; with the randomness fixed {100 * left:.1f} %"
    return _compared(verdict.robust_accuracy, verdict.worst_of_ten, besides, fixed=left)


CHECKS = (unshared,)
