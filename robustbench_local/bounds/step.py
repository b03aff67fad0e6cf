"""One step of a network as the bounds see it: what an interval becomes, and what a linear lower bound becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from robustbench_local.bounds.rounding import SLACK
from robustbench_local.bounds.window import Window


class Box(NamedTuple):
    """An interval for each value of a batch, both ends (N, *shape), float64."""

    low: Tensor
    high: Tensor

    @property
    def magnitude(self) -> Tensor:
        """(N, *shape): the largest absolute value inside."""
        return self.low.abs().maximum(self.high.abs())

    def of(self, images: Tensor) -> Box:
        """The intervals of these images, by their numbers."""
        return Box(self.low[images], self.high[images])


class Linear(NamedTuple):
    """A lower bound, linear in what a step reads: coefficients (B, R, *shape) per input and a constant (B, R).

    R bounds at once of N images; B is N, or 1 while the coefficients are the same for all images.
    """

    coefficients: tuple[Tensor, ...]
    constant: Tensor


class Step(ABC):
    """Sound for the float32 network: both methods hold for what it computes, with its rounding errors."""

    separable = False  # every value it makes depends on one value of its input

    @abstractmethod
    def interval(self, *inputs: Box) -> Box:
        """The values that the step can take where its inputs stay in these boxes."""

    @abstractmethod
    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        """For coefficients above (B, R, *shape) of its output: a lower bound of their product, linear in its inputs."""

    def through(self, window: Window) -> tuple[Step, Window] | None:
        """A step that makes this window of an image alone, and the window that it reads of each input, zeros over the
        edges included. None where no such step is known: all is made, then, of all inputs.
        """
        return None


def product(coefficients: Tensor, values: Tensor) -> Tensor:
    """(B, R, *shape) times (N or 1, *shape), summed over the shape: (B or N, R)."""
    rows, columns = coefficients.flatten(2), values.flatten(1)
    if len(rows) == 1:
        return (rows[0] @ columns.T).T
    return (rows @ columns.unsqueeze(2)).squeeze(2)


def least(coefficients: Tensor, box: Box) -> Tensor:
    """(B, R, *shape) -> (N, R): the least that their product with a point of the box can be, rounding allowed for."""
    middle, radius = (box.low + box.high) / 2, (box.high - box.low) / 2
    return product(coefficients, middle) - product(coefficients.abs(), radius + SLACK * box.magnitude)
