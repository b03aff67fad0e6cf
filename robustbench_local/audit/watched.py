"""One search as the attack itself saw it, before any judge: what it met, and how its loss went."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.audit.subject import Subject
from robustbench_local.core import losses
from robustbench_local.core.attack import Attack
from robustbench_local.core.errors import ModelError
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle


class Watched(Oracle):
    """An oracle that writes down the loss of every gradient query, as (rows, values)."""

    _diary: list[tuple[Tensor, Tensor]]

    def watch(self) -> list[tuple[Tensor, Tensor]]:
        """Begin a diary; every view of this oracle writes into it."""
        self.__dict__["_diary"] = []
        return self._diary

    def grad(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        value, grad, logits = super().grad(x, y, loss)
        rows = torch.arange(len(x), device=x.device) if self._rows is None else self._rows
        self._diary.append((rows, losses.margin(logits, self._y)))
        return value, grad, logits


@dataclass(frozen=True)
class Search:
    """One search as the attack itself saw it, for the n attacked images.

    x_adv: what it returned; seen (n,) bool: whether one of its in-ball queries had won (of a random model: by the mean
    of its search draws); margins (steps, n): the margin at every gradient query, NaN where there was none.
    """

    x_adv: Tensor
    seen: Tensor
    margins: Tensor


def search(subject: Subject, attack: Attack) -> Search | None:
    """Run the attack beside the judge; None where it cannot run."""
    n = subject.attacked
    x, y, draws = subject.x[:n], subject.y[:n], subject.draws[:n]
    oracle = Watched(
        subject.deployed,
        x,
        y,
        subject.threat,
        attack.access,
        draws.stream("oracle"),
        eot=subject.effort.eot,
        minimises=attack.minimises,
    )
    diary = oracle.watch()
    try:
        x_adv = attack(oracle, x.clone(), y, subject.threat, draws.stream("attack"))
    except ModelError:
        return None
    margins = x.new_full((len(diary), n), torch.nan)
    for step, (rows, values) in enumerate(diary):
        margins[step, rows] = values
    return Search(x_adv.detach(), oracle.succeeded, margins)
