"""What attacks that learn, or attack by way of a model of their own, share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError


def minibatches(count: int, batch: int, epochs: int, draws: Draws) -> Iterator[Tensor]:
    """Indices of at most `batch` of `count` points, all of them once per epoch, in an order drawn anew each time."""
    for epoch in range(epochs):
        order = draws[:1].stream(f"epoch:{epoch}").uniform(count)[0].argsort(stable=True)
        yield from order.split(batch)


def check_fit(net: nn.Module, x: Tensor, classes: int, what: str) -> None:
    """ConfigError unless net reads images like x (N, C, H, W) and knows that many classes."""
    try:
        with torch.no_grad():
            found = call(net, x[:1], None).shape[1]
    except RuntimeError as error:
        shape = tuple(x.shape[1:])
        raise ConfigError(f"{what} cannot read images of {shape} (channels, height, width): {error}") from error
    if found < classes:
        raise ConfigError(f"{what} knows {found} classes, and there are {classes}")
