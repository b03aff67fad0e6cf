"""When an attack has succeeded: the one place that says so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core import losses
from robustbench_local.core.defense import is_stochastic


def joined(logits: Tensor, y: Tensor) -> Tensor:
    """(N, K + 1) logits of a detector -> (N, K): class y (N,) has the larger of its own logit and of the rejection's.

    Whoever wants to be taken for another class must beat both (Carlini and Wagner 2017, arXiv:1705.07263).
    """
    kept = torch.maximum(logits.gather(1, y[:, None]), logits[:, -1:])
    return logits[:, :-1].scatter(1, y[:, None], kept)


def success_margin(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """(N,): >= 0 where the attacker has won. A tie or a NaN is the model's error, not its rescue."""
    value = losses.margin(logits, y)  # NaN where any logit is
    if targeted:
        value = -value
    return torch.where(value.isnan(), torch.inf, value)


def rounds_of(model: nn.Module, rounds: int) -> int:
    """How many draws of a model's answers there are to be."""
    return rounds if is_stochastic(model) else 1


def success_margins(answers: Tensor, goal: Tensor, *, targeted: bool = False) -> Tensor:
    """(N, R) leads of the attacker by answers (N, R, K)."""
    rounds = answers.shape[1]
    value = success_margin(answers.flatten(0, 1), goal.repeat_interleave(rounds), targeted=targeted)
    return value.view(-1, rounds)
