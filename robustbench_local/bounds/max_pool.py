"""Max pooling between one of its inputs and a constant (Boopathy et al. 2019, CNN-Cert, in its simplest form)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.bounds.step import Box, Linear, Step, product
from robustbench_local.bounds.window import Window


@dataclass(frozen=True)
class MaxPool(Step):
    """The largest of each window of images (C, H, W).

    Below by the input whose lower end is highest; above by that input too where no other can exceed it, else by the
    highest upper end, a constant.
    """

    inner: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False  # whether windows that reach over the edge count

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(self._pool(inner.low)[0], self._pool(inner.high)[0])

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        (inner,) = inputs
        floor, winner = self._pool(inner.low)
        ceiling, _ = self._pool(inner.high)
        rivals = (self._windows(inner.high) > floor.unsqueeze(2)).sum(2)
        certain = rivals <= 1  # the winner's own upper end is above its lower one
        negative = above.clamp(max=0)
        through = above.clamp(min=0) + negative * certain.unsqueeze(1)
        images, rows = through.shape[:2]
        flat = through.new_zeros(images, rows, self.inner[0], math.prod(self.inner[1:]))
        places = winner.flatten(2).unsqueeze(1).expand(images, rows, -1, -1)
        flat.scatter_add_(3, places, through.flatten(3))
        constant = product(negative, ceiling.masked_fill(certain, 0))
        return Linear((flat.view(images, rows, *self.inner),), constant)

    def through(self, window: Window) -> tuple[MaxPool, Window] | None:
        if self.padding != (0, 0) or self.ceil:  # over the edges is no zero, but nothing
            return None
        read = window.read_by(self.kernel, self.stride, self.padding, self.dilation)
        return replace(self, inner=(self.inner[0], *read.sides)), read

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The largest of each window, and its place in height times width."""
        geometry = self.kernel, self.stride, self.padding, self.dilation, self.ceil
        largest, places = F.max_pool2d(x, *geometry, return_indices=True)
        return largest, places

    def _windows(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, kh kw, *pooled), padded by minus infinity."""
        shape = self._pool(x)[0].shape
        after = [
            (many - 1) * stride + dilation * (size - 1) + 1 - side - before  # negative where no window reaches
            for many, stride, dilation, size, side, before in zip(
                shape[2:], self.stride, self.dilation, self.kernel, x.shape[2:], self.padding, strict=True
            )
        ]
        padded = F.pad(x, (self.padding[1], after[1], self.padding[0], after[0]), value=-math.inf)
        columns = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return torch.unflatten(columns, 1, (x.shape[1], -1)).view(*x.shape[:2], -1, *shape[2:])
