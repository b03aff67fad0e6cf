"""Where a verdict's adversarial images go, batch by batch: they alone grow with the number of images and of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Keep = Callable[[slice, Tensor], None]  # takes the adversarial images (n, C, H, W) of these rows


class Collected:
    """In one tensor of `count` images."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._all: Tensor | None = None

    def __call__(self, rows: slice, x_adv: Tensor) -> None:
        if self._all is None:
            shape = (self._count, *x_adv.shape[1:])
            self._all = torch.empty(shape, dtype=x_adv.dtype, device=x_adv.device, memory_format=torch.channels_last)
        self._all[rows] = x_adv

    def whole(self, like: Tensor) -> Tensor:
        """(count, C, H, W), or where nothing came here none, (0, C, H, W)."""
        return like[:0] if self._all is None else self._all


def together(*keeps: Keep | None) -> Keep:
    """To each of them that there is."""

    def keep(rows: slice, x_adv: Tensor) -> None:
        for each in keeps:
            if each is not None:
                each(rows, x_adv)

    return keep


def dropped(rows: slice, x_adv: Tensor) -> None:
    """Nowhere: the verdict has none."""
