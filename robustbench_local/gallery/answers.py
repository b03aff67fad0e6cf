"""What a model answers, in shares of certainty."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.draws import Draws

DRAWS = 20  # over which a random model's answer is averaged


def probabilities(model: nn.Module, x: Tensor, draws: Draws) -> Tensor:
    """(n, K) of images x (n, C, H, W); of a random model, their mean over draws."""
    rounds = DRAWS if is_stochastic(model) else 1
    with torch.no_grad():
        each = [call(model, x, draws.stream(f"gallery:{k}")).softmax(1) for k in range(rounds)]
    return torch.stack(each).mean(0)
