"""Models that answer with what several passes say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def log_probabilities(x: Tensor, passes: Iterable[Callable[[Tensor], Tensor]]) -> Tensor:
    """(P, N, K): the log-softmax of each pass's logits at x.

    For an attacker's gradient all passes but the last are computed a second time rather than kept, so memory does not
    grow with passes.
    """
    *others, last = passes
    again = torch.is_grad_enabled() and x.requires_grad
    return torch.stack([*((_again if again else _logs)(each, x) for each in others), _logs(last, x)])


def mean_probability(logs: Tensor) -> Tensor:
    """(P, N, K) -> (N, K): the log of the mean probability, exact where probabilities underflow."""
    return logs.logsumexp(0) - math.log(len(logs))


def _logs(each: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return each(x).log_softmax(1)


def _again(each: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """_logs, whose way there is forgotten and gone a second time for the gradient."""
    answer: Tensor = checkpoint(_logs, each, x, use_reentrant=False, preserve_rng_state=False)
    return answer
