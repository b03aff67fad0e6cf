"""Which class a targeted round of an untargeted attack goes for."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.core.oracle import Oracle


def ranked(oracle: Oracle, x: Tensor, y: Tensor, rank: int) -> Tensor:
    """(N,): the class of the rank-th highest logit at x, counted from 0 and leaving out y. One forward pass."""
    others = oracle.logits(x).scatter(1, y[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, rank]
