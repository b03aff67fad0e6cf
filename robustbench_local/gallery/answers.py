"""What a model answers, in shares of certainty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Rejection, call, is_stochastic, rejection
from robustbench_local.core.draws import Draws
from robustbench_local.core.escaping import visible

DRAWS = 20  # over which a random model's answer is averaged


def probabilities(model: nn.Module, x: Tensor, draws: Draws) -> Tensor:
    """(n, K) of images x (n, C, H, W); of a random model, their mean over draws."""
    rounds = DRAWS if is_stochastic(model) else 1
    with torch.no_grad():
        each = [call(model, x, draws.stream(f"gallery:{k}")).softmax(1) for k in range(rounds)]
    return torch.stack(each).mean(0)


def class_name(answer: int, model: nn.Module, classes: Sequence[str]) -> str:
    """What an answer of the model is called: beyond the classes of the data it is a rejection, or has but a number."""
    if answer < len(classes):
        return visible(classes[answer])
    return f"class {answer}" if rejection(model) is Rejection.NONE else "rejected"
