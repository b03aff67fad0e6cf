"""A model as an oracle asks it: a function that counts, a layout that is fast, a derivative that explains itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError


def sealed(model: nn.Module) -> tuple[Callable[[Tensor, Draws | None], Tensor], Callable[[], int]]:
    """(the model as a function, how many images that was given so far)."""
    count = 0

    def answer(x: Tensor, draws: Draws | None) -> Tensor:
        nonlocal count
        count += len(x)
        return call(model, x, draws)

    return answer, lambda: count


def laid_out(x: Tensor) -> Tensor:
    """Channels last, as convolutions run fastest; with one channel the strides must say so, or nobody would know."""
    channels, height, width = x.shape[1:]
    x = x.contiguous(memory_format=torch.channels_last)
    if channels > 1 or x.device.type != "cpu":
        return x
    return x.as_strided(x.shape, (height * width, 1, width, 1))


def derivative(value: Tensor, leaf: Tensor, *, more: bool = False) -> Tensor:
    try:
        return torch.autograd.grad(value, leaf, retain_graph=more)[0]
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "not have been used in the graph" not in str(error):
            raise
        raise ModelError(
            "the model's output does not depend on its input through autograd: a part of it is not differentiable"
            " and states no surrogate, or runs under no_grad; give it a surrogate (Preprocess) or attack it by scores"
        ) from error
