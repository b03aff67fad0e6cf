"""Which step a layer of torch.nn is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.bounds.affine import AveragePool, Conv, Matrix, Mean, Pad, Reshape, Scale
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.s_shaped import SShaped
from robustbench_local.bounds.step import Step

Shape = tuple[int, ...]


class Unreadable(Exception):
    """Why no bound is known of a layer."""


def step_of(layer: nn.Module, inner: Shape, outer: Shape) -> Step | None:
    """What a layer does to values of shape inner, where it makes outer; None where it changes nothing. Unreadable else.

    Of the layer's own type, for a subclass may do something else.
    """
    if type(layer) in (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d):
        return None
    if type(layer) is nn.ReLU:
        return ReLU()
    if type(layer) in (nn.Sigmoid, nn.Tanh):
        return SShaped(torch.sigmoid if type(layer) is nn.Sigmoid else torch.tanh)
    if type(layer) is nn.ZeroPad2d:
        return zeros_around(inner, layer.padding)
    if type(layer) is nn.Flatten or type(layer) is nn.Unflatten:
        return Reshape(inner, outer)
    if type(layer) not in _MAKERS:
        raise Unreadable("a layer of no kind that there are bounds for")
    return _MAKERS[type(layer)](layer, inner)


def _conv(layer: nn.Conv2d, inner: Shape) -> Step:
    if layer.padding_mode != "zeros":
        raise Unreadable(f"it pads with {layer.padding_mode}, and zeros are known")
    return conv(inner, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def conv(
    inner: Shape,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Step:
    """Settings as torch.nn.functional.conv2d takes them."""
    wide = [spread * (size - 1) for spread, size in zip(pair(dilation), weight.shape[2:], strict=True)]
    if padding == "same" and any(each % 2 for each in wide):
        raise Unreadable("of padding 'same' with as many zeros before as after no bound is known where they are odd")
    known = {"same": (wide[0] // 2, wide[1] // 2), "valid": (0, 0)}
    zeros = known[padding] if isinstance(padding, str) else pair(padding)
    shift = None if bias is None else doubled(bias).view(-1, 1, 1)
    return Conv(doubled(weight), shift, inner, pair(stride), zeros, pair(dilation), groups)


def _linear(layer: nn.Linear, inner: Shape) -> Step:
    return linear(inner, layer.weight, layer.bias)


def linear(inner: Shape, weight: Tensor, bias: Tensor | None = None) -> Step:
    """Settings as torch.nn.functional.linear takes them."""
    if len(inner) != 1:
        raise Unreadable(f"it reads {len(inner)} axes of an image, and a flat one is known")
    return Matrix(doubled(weight), None if bias is None else doubled(bias))


def zeros_around(inner: Shape, sides: Any, value: float = 0.0) -> Step:
    """Padding by (left, right, top, bottom) of the last two axes."""
    if value or len(sides) != 4 or len(inner) < 2:
        raise Unreadable("padding of height and width by zeros is known, and no other")
    return Pad((sides[0], sides[1], sides[2], sides[3]))


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, inner: Shape) -> Step:
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise Unreadable("it normalises by the batch, so an image's answer hangs on its company")
    mean, variance = doubled(layer.running_mean), doubled(layer.running_var)
    weight = torch.ones_like(mean) if layer.weight is None else doubled(layer.weight)
    shift = torch.zeros_like(mean) if layer.bias is None else doubled(layer.bias)
    factor = weight / (variance + layer.eps).sqrt()
    shape = (-1, *(1 for _ in inner[1:]))
    parts = (mean * factor).abs() + shift.abs()
    return Scale(*(each.view(shape) for each in (factor, shift - mean * factor, parts)))


def _max_pool(layer: nn.MaxPool2d, inner: Shape) -> Step:
    if layer.return_indices:
        raise Unreadable("it answers with places too")
    stride = layer.kernel_size if layer.stride is None else layer.stride
    geometry = pair(layer.kernel_size), pair(stride), pair(layer.padding), pair(layer.dilation)
    return MaxPool(inner, *geometry, layer.ceil_mode)


def _average_pool(layer: nn.AvgPool2d, inner: Shape) -> Step:
    padded = pair(layer.padding) != (0, 0)
    if layer.ceil_mode or layer.divisor_override is not None or (padded and not layer.count_include_pad):
        raise Unreadable("ceil_mode, divisor_override and padding that does not count are not known")
    return AveragePool(inner, pair(layer.kernel_size), pair(layer.stride), pair(layer.padding))


def _adaptive(layer: nn.AdaptiveAvgPool2d, inner: Shape) -> Step:
    sides = pair(layer.output_size)
    if sides == (1, 1):
        return Mean(inner, keepdim=True)
    if any(side is None or own % side for own, side in zip(inner[1:], sides, strict=True)):
        raise Unreadable(f"windows of {inner[1:]} for {sides} are of several sizes")
    kernel = inner[1] // sides[0], inner[2] // sides[1]
    return AveragePool(inner, kernel, kernel, (0, 0))


_MAKERS: dict[type[nn.Module], Callable[[Any, Shape], Step]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive,
}


def doubled(values: Tensor) -> Tensor:
    """In float64. Unreadable where a network computes in less than float32, whose rounding the bounds allow for."""
    if values.dtype not in (torch.float32, torch.float64):
        raise Unreadable(f"it computes in {values.dtype}, and the rounding of float32 is allowed for")
    return values.detach().double()


def pair(value: Any) -> tuple[int, int]:
    return (value[0], value[-1]) if isinstance(value, tuple | list) else (value, value)
