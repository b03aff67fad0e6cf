"""Which step a layer of torch.nn is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.bounds.affine import AveragePool, Conv, Matrix, Mean, Reshape, Scale
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.relu import ReLU
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
    if type(layer) is nn.Flatten or type(layer) is nn.Unflatten:
        return Reshape(inner, outer)
    if type(layer) not in _MAKERS:
        raise Unreadable("a layer of no kind that there are bounds for")
    return _MAKERS[type(layer)](layer, inner)


def _conv(layer: nn.Conv2d, inner: Shape) -> Step:
    if layer.padding_mode != "zeros" or (isinstance(layer.padding, str) and layer.padding != "valid"):
        raise Unreadable(f"it pads with {layer.padding_mode}, {layer.padding}: known are zeros, their number given")
    padding = (0, 0) if isinstance(layer.padding, str) else pair(layer.padding)
    bias = None if layer.bias is None else doubled(layer.bias).view(-1, 1, 1)
    geometry = pair(layer.stride), padding, pair(layer.dilation)
    return Conv(doubled(layer.weight), bias, inner, *geometry, layer.groups)


def _linear(layer: nn.Linear, inner: Shape) -> Step:
    if len(inner) != 1:
        raise Unreadable(f"it reads {len(inner)} axes of an image, and a flat one is known")
    return Matrix(doubled(layer.weight), None if layer.bias is None else doubled(layer.bias))


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
    if layer.ceil_mode or layer.return_indices:
        raise Unreadable("ceil_mode and return_indices are not known")
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return MaxPool(inner, pair(layer.kernel_size), pair(stride), pair(layer.padding), pair(layer.dilation))


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
