"""A network as a list of steps, and the intervals of all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.s_shaped import SShaped
from robustbench_local.bounds.step import Box, Step
from robustbench_local.core.threat import Norm


@dataclass(frozen=True)
class Placed:
    """A step, and the places of what it reads; place 0 is the image, the first step makes place 1."""

    step: Step
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """Steps in the order of their computation; the last makes the logits (K,)."""

    steps: tuple[Placed, ...]

    def intervals(self, ball: Ball) -> list[Box]:
        """IBP (Gowal et al. 2018): a box for the image and for what each step makes."""
        boxes = [ball.box]
        for placed in self.steps:
            boxes.append(placed.step.interval(*(boxes[place] for place in placed.inputs)))
        return boxes

    def read_by(self, place: int, kind: type[Step]) -> bool:
        return any(place in placed.inputs and isinstance(placed.step, kind) for placed in self.steps)

    def exact(self, norm: Norm) -> list[bool]:
        """Of each place: whether its interval is the smallest there is, so that nothing is gained by a relaxation.

        In L-infinity, of the first step that mixes pixels, and of all before it.
        """
        independent, found = [norm in (Norm.LINF, Norm.NONE)], [norm in (Norm.LINF, Norm.NONE)]
        for placed in self.steps:
            of_independent = len(placed.inputs) == 1 and independent[placed.inputs[0]]
            found.append(of_independent or (placed.step.separable and found[placed.inputs[0]]))
            independent.append(of_independent and placed.step.separable)
        return found


def undecided(network: Network, place: int, box: Box) -> Tensor:
    """(values,) bool: of which values a tighter interval helps some image: of those that pooling, sigmoid or tanh
    reads and those whose sign a ReLU does not know. None of what a ReLU makes, which is as tight as what it reads.
    """
    found = torch.zeros(box.low[0].numel(), dtype=torch.bool, device=box.low.device)
    if isinstance(network.steps[place - 1].step, ReLU):
        return found
    if network.read_by(place, MaxPool) or network.read_by(place, SShaped):
        found |= (box.low < box.high).flatten(1).any(0)
    if network.read_by(place, ReLU):
        found |= ((box.low < 0) & (box.high > 0)).flatten(1).any(0)
    return found
