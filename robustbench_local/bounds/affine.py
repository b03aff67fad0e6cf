"""Steps that are affine in what they read: convolution, matrix, scale and shift, mean, sum; and a change of shape."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from robustbench_local.bounds.rounding import UNDERFLOW, gamma
from robustbench_local.bounds.step import Box, Linear, Step, product
from robustbench_local.bounds.window import Window


class Affine(Step):
    """W x + b of one input. Exact but for rounding, which `room` bounds per value."""

    bias: Tensor | None  # broadcasts against (N, *shape)

    @property
    @abstractmethod
    def terms(self) -> int:
        """Products that are summed for one value."""

    @abstractmethod
    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        """W x, or |W| x: (N, *inner) -> (N, *outer)."""

    @abstractmethod
    def transpose(self, above: Tensor) -> Tensor:
        """above W: (B, R, *outer) -> (B, R, *inner)."""

    def room(self, inner: Box) -> Tensor:
        """(N, *outer): how far a value may be from exact arithmetic on the same inputs."""
        size = self.apply(inner.magnitude, absolute=True)
        return gamma(self.terms + 1) * (size if self.bias is None else size + self.bias.abs()) + UNDERFLOW

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        middle, radius = self.apply((inner.low + inner.high) / 2), self.apply((inner.high - inner.low) / 2, True)
        middle = middle if self.bias is None else middle + self.bias
        radius = radius + self.room(inner)
        return Box(middle - radius, middle + radius)

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        room = self.room(*inputs)
        constant = -product(above.abs(), room)
        if self.bias is not None:
            constant = constant + product(above, self.bias.expand(1, *room.shape[1:]))
        return Linear((self.transpose(above),), constant)


@dataclass(frozen=True)
class Conv(Affine):
    """weight (out, in / groups, kh, kw) and bias (out, 1, 1) over images of shape inner (in, H, W)."""

    weight: Tensor
    bias: Tensor | None
    inner: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def terms(self) -> int:
        return math.prod(self.weight.shape[1:])

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        weight = self.weight.abs() if absolute else self.weight
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, above: Tensor) -> Tensor:
        rows = above.flatten(0, 1)
        size = (len(rows), *self.inner)
        found: Tensor = conv2d_input(size, self.weight, rows, self.stride, self.padding, self.dilation, self.groups)
        return found.view(*above.shape[:2], *self.inner)

    def through(self, window: Window) -> tuple[Conv, Window]:
        height, width = self.weight.shape[2:]
        read = window.read_by((height, width), self.stride, self.padding, self.dilation)
        return replace(self, inner=(self.inner[0], *read.sides), padding=(0, 0)), read


@dataclass(frozen=True)
class Matrix(Affine):
    """weight (outer, inner) and bias (outer,)."""

    weight: Tensor
    bias: Tensor | None

    @property
    def terms(self) -> int:
        return self.weight.shape[1]

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        return x @ (self.weight.abs() if absolute else self.weight).T

    def transpose(self, above: Tensor) -> Tensor:
        return above @ self.weight


@dataclass(frozen=True)
class Scale(Affine):
    """factor * x + bias, both broadcast against the values of an image: normalisation, and batch norm folded.

    parts: the sizes of the terms that a float32 network adds up to make bias, for its rounding (|bias| or more).
    """

    factor: Tensor
    bias: Tensor | None
    parts: Tensor | None = None
    separable = True

    @property
    def terms(self) -> int:
        return 8  # operations, not products: a root, quotients and sums on the way to factor and bias

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        return x * (self.factor.abs() if absolute else self.factor)

    def transpose(self, above: Tensor) -> Tensor:
        return above * self.factor

    def room(self, inner: Box) -> Tensor:
        room = super().room(inner)
        return room if self.parts is None else room + gamma(self.terms) * self.parts

    def through(self, window: Window) -> tuple[Scale, Window]:
        bias, parts = (None if each is None else window.of(each) for each in (self.bias, self.parts))
        return Scale(window.of(self.factor), bias, parts), window


@dataclass(frozen=True)
class Mean(Affine):
    """The mean over height and width of (C, H, W), kept as axes of length 1 or not."""

    inner: tuple[int, ...]
    keepdim: bool
    bias: Tensor | None = None

    @property
    def terms(self) -> int:
        return math.prod(self.inner[1:]) + 1

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)

    def transpose(self, above: Tensor) -> Tensor:
        spread = above.reshape(*above.shape[:2], self.inner[0], 1, 1) / math.prod(self.inner[1:])
        return spread.expand(*above.shape[:2], *self.inner)


@dataclass(frozen=True)
class AveragePool(Affine):
    """The mean of each window of images of shape inner (C, H, W); padding counts as zeros."""

    inner: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    bias: Tensor | None = None

    @property
    def terms(self) -> int:
        return math.prod(self.kernel) + 1

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding)

    def transpose(self, above: Tensor) -> Tensor:
        rows = above.flatten(0, 1)
        share = above.new_full((self.inner[0], 1, *self.kernel), 1 / math.prod(self.kernel))
        size = (len(rows), *self.inner)
        found: Tensor = conv2d_input(size, share, rows, self.stride, self.padding, groups=self.inner[0])
        return found.view(*above.shape[:2], *self.inner)

    def through(self, window: Window) -> tuple[AveragePool, Window]:
        read = window.read_by(self.kernel, self.stride, self.padding)
        return replace(self, inner=(self.inner[0], *read.sides), padding=(0, 0)), read


@dataclass(frozen=True)
class Reshape(Step):
    """The same values, in the same order, of another shape. Nothing is computed, so nothing is rounded."""

    inner: tuple[int, ...]
    outer: tuple[int, ...]
    separable = True

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(*(end.reshape(len(end), *self.outer) for end in inner))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        return Linear((above.reshape(*above.shape[:2], *self.inner),), above.new_zeros(above.shape[:2]))


@dataclass(frozen=True)
class Pad(Step):
    """Zeros around images: (left, right, top, bottom) of them, negative where pixels are cut off."""

    sides: tuple[int, int, int, int]

    def interval(self, *inputs: Box) -> Box:
        (inner,) = inputs
        return Box(F.pad(inner.low, self.sides), F.pad(inner.high, self.sides))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        left, right, top, bottom = self.sides
        return Linear((F.pad(above, (-left, -right, -top, -bottom)),), above.new_zeros(above.shape[:2]))

    def through(self, window: Window) -> tuple[Pad, Window]:
        left, _, top, _ = self.sides
        return Pad((0, 0, 0, 0)), Window(window.top - top, window.bottom - top, window.left - left, window.right - left)


@dataclass(frozen=True)
class Concat(Step):
    """Its inputs one after another along the first axis of an image. sizes: how long each of them is there."""

    sizes: tuple[int, ...]

    def interval(self, *inputs: Box) -> Box:
        low, high = zip(*inputs, strict=True)
        return Box(torch.cat(low, 1), torch.cat(high, 1))

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        return Linear(above.split(self.sizes, 2), above.new_zeros(above.shape[:2]))

    def through(self, window: Window) -> tuple[Concat, Window]:
        return self, window


@dataclass(frozen=True)
class Add(Step):
    """The sum of two inputs of one shape: a residual connection."""

    def interval(self, *inputs: Box) -> Box:
        first, second = inputs
        room = self._room(*inputs)
        return Box(first.low + second.low - room, first.high + second.high + room)

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        return Linear((above, above), -product(above.abs(), self._room(*inputs)))

    def through(self, window: Window) -> tuple[Add, Window]:
        return self, window

    def _room(self, first: Box, second: Box) -> Tensor:
        return gamma(1) * (first.magnitude + second.magnitude) + UNDERFLOW
