"""CROWN (Zhang et al. 2018, arXiv:1811.00866): linear lower bounds, carried backwards from a step to the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.crop import coefficients, crop, squares
from robustbench_local.bounds.network import Network, undecided
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.step import Box, least
from robustbench_local.core.threat import Norm

VALUES = 2**18  # float64 numbers in one tensor of coefficients, at most: 2 MiB, of which some stay in a core's cache


@dataclass(frozen=True)
class Lines:
    """What a bound may choose, by place; any choice is sound.

    slopes: (N, R, U) in [0, 1] of the lines below what a ReLU makes, as ReLU.between reads them; CROWN's own where none
    are given.
    prices: (N, 1, *shape) multipliers of what is at a place (Wang et al. 2021, beta-CROWN): not below 0 where it is
    known not to be, not above 0 where it is known not to be, else 0.
    """

    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    prices: Mapping[int, Tensor] = field(default_factory=dict)


OWN = Lines()


def lower(
    network: Network,
    boxes: list[Box],
    ball: Ball,
    place: int,
    rows: Tensor,
    lines: Lines = OWN,
    seen: dict[int, Tensor] | None = None,
) -> Tensor:
    """Lower bounds (N, R) of rows (B, R, *shape) times what is at that place, for every image of the ball.

    boxes: an interval for all that is computed before. seen: is given the coefficients (B, R, *shape) of each place.
    """
    pending = {place: rows}
    total = rows.new_zeros(1, 1)
    for here in range(place, 0, -1):
        if here not in pending:
            continue
        placed, above = network.steps[here - 1], pending.pop(here)
        if here in lines.prices:
            above = above - lines.prices[here]
        if seen is not None:
            seen[here] = above
        inputs = [boxes[each] for each in placed.inputs]
        if isinstance(placed.step, ReLU) and here in lines.slopes:
            found = placed.step.between(above, inputs[0], lines.slopes[here])
        else:
            found = placed.step.backward(above, *inputs)
        total = total + found.constant
        for each, back in zip(placed.inputs, found.coefficients, strict=True):
            pending[each] = pending[each] + back if each in pending else back
    if seen is not None:
        seen[0] = pending[0]
    return total + ball.minimum(pending[0])


def answers(network: Network, x: Tensor) -> Box:
    """What the logits of images x (N, C, H, W) can be, from rounding alone."""
    point = Ball(x.double(), Norm.LINF, 0.0)
    boxes = network.intervals(point)
    own = torch.eye(boxes[-1].low.shape[1], dtype=torch.float64, device=x.device)
    low, high = lower(network, boxes, point, len(network.steps), torch.cat([own, -own]).unsqueeze(0)).chunk(2, 1)
    return Box(low, -high)


def nearest(network: Network, boxes: list[Box], rows: Tensor) -> Tensor:
    """Lower bounds (N, R) of rows (B, R, K) times the logits, from the intervals before the last step.

    So a difference of two logits is bounded as one number, not as two (Gowal et al. 2018, section 3).
    """
    last = network.steps[-1]
    inputs = [boxes[each] for each in last.inputs]
    found = last.step.backward(rows, *inputs)
    return found.constant + sum(least(each, box) for each, box in zip(found.coefficients, inputs, strict=True))


Bound = Callable[[Network, list[Box], Ball, int, Tensor], Tensor]  # as lower


def tightened(network: Network, ball: Ball, bound: Bound = lower, known: list[Box] | None = None) -> list[Box]:
    """The intervals of every place, where a relaxation hangs on them by a linear bound; never wider than those of IBP.

    known: intervals that hold already, and are not widened.
    """
    boxes = [ball.box]
    exact = network.exact(ball.norm)
    for place, placed in enumerate(network.steps, 1):
        box = placed.step.interval(*(boxes[each] for each in placed.inputs))
        if known is not None:
            box = Box(box.low.maximum(known[place].low), box.high.minimum(known[place].high))
        boxes.append(box)
        if not exact[place]:
            wanted = undecided(network, place, box).nonzero()[:, 0]
            boxes[place] = _tighter(network, boxes, ball, place, wanted, bound)
    return boxes


def price(network: Network, ball: Ball, boxes: list[Box]) -> int:
    """How many coefficients are carried back, of an image, to tighten these intervals by one bound on either side."""
    exact = network.exact(ball.norm)
    places = [place for place in range(1, len(boxes)) if not exact[place]]
    wanted = {place: undecided(network, place, boxes[place]).nonzero()[:, 0] for place in places}
    return 2 * sum(coefficients(network, boxes, place, values) for place, values in wanted.items())


def _tighter(network: Network, boxes: list[Box], ball: Ball, place: int, wanted: Tensor, bound: Bound) -> Box:
    box = boxes[place]
    low, high = (end.flatten(1).clone() for end in box)
    for window, values, numbers in squares(wanted, box.low.shape[1:]):
        part = crop(network, boxes, ball, place, window)
        shape = part.boxes[-1].low.shape[1:]
        widest = max(each.low.numel() for each in part.boxes)
        together = max(1, VALUES // (2 * widest))
        for some, own in zip(values.split(together), numbers.split(together), strict=True):
            rows = low.new_zeros(len(some), math.prod(shape)).scatter_(1, own.unsqueeze(1), 1)
            both = torch.cat([rows, -rows]).view(1, -1, *shape)
            below, above = bound(part.network, part.boxes, part.ball, len(part.network.steps), both).chunk(2, 1)
            low[:, some] = low[:, some].maximum(below)
            high[:, some] = high[:, some].minimum(-above)
    return Box(low.view_as(box.low), high.view_as(box.high))
