"""One search as the attack itself saw it, before any judge: what it met, and how its loss went."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel


class RecordingOracle(Oracle):
    """An oracle that writes down the margin at every gradient query, as (rows, values, which had finite logits)."""

    _diary: list[tuple[Tensor, Tensor, Tensor]]

    def record(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Begin a diary; every view of this oracle writes into it."""
        self.__dict__["_diary"] = []
        return self._diary

    def grad(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        value, grad, logits = super().grad(x, y, loss)
        rows = torch.arange(len(x), device=x.device) if self._rows is None else self._rows
        self._diary.append((rows, losses.margin(logits, self._y), logits.isfinite().all(1)))
        return value, grad, logits


@dataclass(frozen=True)
class Recording:
    """x_adv (n, C, H, W): what the attack returned; succeeded (n,) bool: whether one of its in-ball queries did (of a
    random model: by the mean of its search draws); margins (steps, n): at every gradient query, NaN where there was
    none. nan (n,) bool: whether any of these queries met a logit that is NaN or infinite.
    """

    x_adv: Tensor
    succeeded: Tensor
    margins: Tensor
    nan: Tensor


def recorded(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, eot: int
) -> Recording | None:
    """Run the attack on images x (n, C, H, W) of labels y (n,), beside the judge; None where it cannot run."""
    oracle = RecordingOracle(
        model, x, y, threat, attack.access, draws.stream("oracle"), eot=eot, minimises=attack.minimises
    )
    diary = oracle.record()
    try:
        x_adv = attack(oracle, x.clone(), y.clone(), copy(threat), draws.clone().stream("attack"))
    except ModelError:
        return None
    margins = x.new_full((len(diary), len(x)), torch.nan)
    nan = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step, (rows, values, finite) in enumerate(diary):
        margins[step, rows] = values
        nan[rows] |= ~finite
    return Recording(x_adv.detach(), oracle.succeeded, margins, nan)
