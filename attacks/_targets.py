"""Which classes an untargeted attack goes for."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.core.oracle import Oracle

MOST = 16  # classes whose gradients a step asks for: of 1,000 all would take a day and gigabytes for one image


def ranked(oracle: Oracle, x: Tensor, y: Tensor, rank: int) -> Tensor:
    """(N,): the class of the rank-th highest logit at x, counted from 0 and leaving out y. One forward pass."""
    others = oracle.logits(x).scatter(1, y[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, rank]


def contenders(logits: Tensor, y: Tensor) -> Tensor:
    """(N, M) of the classes of logits (N, K), y among them: all in their order, or of more than MOST those of the
    largest logits. The code of DeepFool's authors takes 10, targeted FAB in AutoAttack 9 beside y.
    """
    if logits.shape[1] <= MOST:
        return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return logits.nan_to_num(-torch.inf).scatter(1, y[:, None], torch.inf).topk(MOST, dim=1).indices
