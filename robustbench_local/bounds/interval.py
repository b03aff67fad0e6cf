"""Differentiable intervals, in a network's own precision: what certified training lowers. No certificate: these round.

A network that is called with an Interval instead of images computes with intervals, layer by layer (IBP, Gowal et al.
2018, arXiv:1810.12715), by torch's own hook for what stands in a tensor's place. certify.py holds what is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.errors import BoundsError


@dataclass(frozen=True)
class Interval:
    """What a network makes of images, and of boxes near them: all (N, *shape).

    point: of the images themselves, which give batch norm its statistics in training. middle, radius: of the boxes,
    radius >= 0. last: of what a linear layer made, what it read, and its weight; else None.
    """

    point: Tensor
    middle: Tensor
    radius: Tensor
    last: tuple[Interval, Tensor] | None = None

    @classmethod
    def between(cls, point: Tensor, low: Tensor, high: Tensor) -> Interval:
        return cls(point, (high + low) / 2, (high - low) / 2)

    @property
    def low(self) -> Tensor:
        return self.middle - self.radius

    @property
    def high(self) -> Tensor:
        return self.middle + self.radius

    def margins(self, y: Tensor) -> Tensor:
        """(N, K): lower bounds of z_y - z_j of the logits, of which this is the interval; 0 where j is y.

        Of a linear layer's differences each is bounded as one number (the last layer elided, Gowal et al. 2018).
        """
        if self.last is None:
            found = self.low.gather(1, y.unsqueeze(1)) - self.high
        else:
            inner, weight = self.last
            rows = weight[y].unsqueeze(1) - weight
            middle = self.middle.gather(1, y.unsqueeze(1)) - self.middle
            found = middle - (rows.abs() @ inner.radius.unsqueeze(2)).squeeze(2)
        return found.scatter(1, y.unsqueeze(1), 0.0)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Interval:
        name = getattr(func, "__name__", str(func))
        if name not in _RULES or not isinstance(args[0], Interval):
            raise BoundsError(f'no interval is known of the operation "{name}": known are {", ".join(_RULES)}')
        return _RULES[name](*args, **(kwargs or {}))

    @property
    def shape(self) -> torch.Size:
        return self.point.shape

    def dim(self) -> int:
        return self.point.dim()

    def size(self, axis: int) -> int:
        return self.point.size(axis)

    def flatten(self, start: int = 0, end: int = -1) -> Interval:
        return self._each(lambda values: values.flatten(start, end))

    def view(self, *shape: int) -> Interval:
        return self._each(lambda values: values.reshape(*shape))

    reshape = view

    def mean(self, axes: Sequence[int], keepdim: bool = False) -> Interval:
        return self._each(lambda values: values.mean(tuple(axes), keepdim))

    def relu(self) -> Interval:
        return self._monotone(torch.relu)

    def __add__(self, other: Interval | Tensor | float) -> Interval:
        if isinstance(other, Interval):
            return Interval(self.point + other.point, self.middle + other.middle, self.radius + other.radius)
        return Interval(self.point + other, self.middle + other, self.radius)

    __radd__ = __add__

    def __sub__(self, other: Tensor | float) -> Interval:
        return self + -other

    def __mul__(self, other: Tensor | float) -> Interval:
        size = other.abs() if isinstance(other, Tensor) else abs(other)
        return Interval(self.point * other, self.middle * other, self.radius * size)

    __rmul__ = __mul__

    def __truediv__(self, other: Tensor | float) -> Interval:
        return self * (1 / other)

    def _each(self, made: Callable[[Tensor], Tensor]) -> Interval:
        """Of what is linear, without negative weights and without a constant."""
        return Interval(made(self.point), made(self.middle), made(self.radius))

    def _monotone(self, made: Callable[[Tensor], Tensor]) -> Interval:
        return Interval.between(made(self.point), made(self.low), made(self.high))


def _affine(made: Callable[..., Tensor], x: Interval, weight: Tensor, bias: Tensor | None) -> Interval:
    point, middle = made(torch.cat([x.point, x.middle]), weight, bias).chunk(2)
    return Interval(point, middle, made(x.radius, weight.abs(), None))


def _conv2d(x: Interval, weight: Tensor, bias: Tensor | None = None, *geometry: Any) -> Interval:
    return _affine(lambda values, *weights: F.conv2d(values, *weights, *geometry), x, weight, bias)


def _linear(x: Interval, weight: Tensor, bias: Tensor | None = None) -> Interval:
    found = _affine(F.linear, x, weight, bias)
    return Interval(found.point, found.middle, found.radius, (x, weight))


def _relu(x: Interval, inplace: bool = False) -> Interval:
    return x.relu()


def _batch_norm(
    x: Interval,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Interval:
    """By the statistics of the images, in training as they are found, and not by those of boxes."""
    point = F.batch_norm(x.point, mean, variance, weight, bias, training, momentum, eps)
    if training or mean is None or variance is None:
        variance, mean = torch.var_mean(x.point, [axis for axis in range(x.dim()) if axis != 1], correction=0)
    shape = (-1, *(1,) * (x.dim() - 2))
    factor = (variance + eps).rsqrt() if weight is None else weight * (variance + eps).rsqrt()
    shift = -mean * factor if bias is None else bias - mean * factor
    found = x * factor.view(shape) + shift.view(shape)
    return Interval(point, found.middle, found.radius)


def _dropout(x: Interval, p: float = 0.5, training: bool = True, inplace: bool = False) -> Interval:
    """The same values are dropped of images and of boxes."""
    return x * F.dropout(torch.ones_like(x.point), p, training)


def _pooled(pool: Callable[..., Tensor]) -> Callable[..., Interval]:
    def rule(x: Interval, *settings: Any, **named: Any) -> Interval:
        return x._monotone(lambda values: pool(values, *settings, **named))

    return rule


_RULES: dict[str, Callable[..., Interval]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "relu": _relu,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "max_pool2d": _pooled(F.max_pool2d),
    "avg_pool2d": _pooled(F.avg_pool2d),
    "adaptive_avg_pool2d": _pooled(F.adaptive_avg_pool2d),
}


def propagate(net: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Interval:
    """The logits of images x and their interval over the boxes [low, high], all (N, C, H, W), in net's mode.

    BoundsError where net computes something that no interval is known of.
    """
    what = f"no interval is known of what {type(net).__name__} computes"
    try:
        found = net(Interval.between(x, low, high))
    except (AttributeError, TypeError) as error:  # methods of tensors that an interval has not
        raise BoundsError(f"{what} ({error})") from error
    if not isinstance(found, Interval):
        raise BoundsError(what)
    return found
