"""Affine steps one after another within known intervals: what they add and how they round is found once for all."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_local.bounds.affine import Affine
from robustbench_local.bounds.step import Box, Linear, Step, product


@dataclass(frozen=True)
class Chain(Step):
    """shift (1, *shape): what is made of zeros. room (N, *shape): how far a value may be from exact arithmetic."""

    steps: tuple[Affine, ...]
    shift: Tensor
    room: Tensor

    @classmethod
    def of(cls, step: Affine, inner: Box) -> Chain:
        """Of one step that reads values within these intervals."""
        room = step.room(inner)
        return cls(
            (step,), room.new_zeros(1, *room.shape[1:]) if step.bias is None else step.bias.expand_as(room[:1]), room
        )

    def then(self, step: Affine, inner: Box) -> Chain:
        """One more step, which reads what the chain makes: values within these intervals."""
        last = Chain.of(step, inner)
        shift, room = step.apply(self.shift) + last.shift, step.apply(self.room, absolute=True) + last.room
        return Chain((*self.steps, step), shift, room)

    def interval(self, *inputs: Box) -> Box:
        (box,) = inputs
        for step in self.steps:
            box = step.interval(box)
        return box

    def backward(self, above: Tensor, *inputs: Box) -> Linear:
        constant = product(above, self.shift) - product(above.abs(), self.room)
        for step in reversed(self.steps):
            above = step.transpose(above)
        return Linear((above,), constant)
