"""Small matrices that images are multiplied with: made once on the host, and sent once to each device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache

import torch
from torch import Tensor


def constant(like: Tensor, make: Callable[..., Tensor], *settings: Hashable) -> Tensor:
    """make(*settings), of the device and dtype of `like`. It is shared: nobody may change it."""
    return _sent(make, settings, like.device, like.dtype)


@lru_cache(256)
def _sent(
    make: Callable[..., Tensor], settings: tuple[Hashable, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in that mode could never meet a gradient
        return make(*settings).to(device, dtype)
