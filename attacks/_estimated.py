"""Gradients from scores alone: the slope along random directions, forward and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_local.core import losses
from robustbench_local.core.blocks import at_once
from robustbench_local.core.oracle import Oracle

CHUNK = 25  # directions per query, of large images fewer: bounds memory, the same in any batch


def slope(
    oracle: Oracle,
    x: Tensor,
    y: Tensor,
    loss: losses.Loss,
    directions: Callable[[int], Tensor],
    count: int,
    size: float,
) -> Tensor:
    """Mean over directions v of (loss(x + size v) - loss(x - size v)) / (2 size) v, (N, C, H, W); 0 where frozen.

    directions(k) gives the next k of them, (N, k, C, H, W). 2 count forwards.
    """
    total = torch.zeros_like(x)
    together = at_once(CHUNK, x[0].numel())
    for done in range(0, count, together):
        v = directions(min(together, count - done)).to(x)
        logits = oracle.logits(x[:, None, None] + size * torch.stack([v, -v], 2))  # (N, k, 2, K)
        value = loss(logits.flatten(0, 2), y.repeat_interleave(2 * v.shape[1])).view(len(x), -1, 2)
        rise = (value[..., 0] - value[..., 1]).nan_to_num(0.0) / (2 * size)
        total += torch.einsum("nk,nkchw->nchw", rise, v)
    return total / count
