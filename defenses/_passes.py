"""Models that answer with what several passes say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def log_probabilities(x: Tensor, passes: Iterable[Callable[[Tensor], Tensor]]) -> Tensor:
    """(P, N, K): the log-softmax of each pass's logits at x.

    For an attacker's gradient a pass is computed a second time rather than kept, so memory does not grow with passes.
    """
    return torch.stack([_one(each, x) for each in passes])


def mean_probability(logs: Tensor) -> Tensor:
    """(P, N, K) -> (N, K): the log of the mean probability, exact where probabilities underflow."""
    return logs.logsumexp(0) - math.log(len(logs))


def _one(each: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    def logs(x: Tensor) -> Tensor:
        return each(x).log_softmax(1)

    if torch.is_grad_enabled() and x.requires_grad:
        answer: Tensor = checkpoint(logs, x, use_reentrant=False, preserve_rng_state=False)
        return answer
    return logs(x)
