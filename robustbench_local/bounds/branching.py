"""Branch and bound on the signs of ReLUs (Bunel et al. 2020), with multipliers for them (Wang et al. 2021, beta-CROWN).

What an image may be is split by the sign of one value that a ReLU reads; in each half that ReLU is a line. A margin
holds when it holds in all parts, and the least of their bounds is a bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_local.bounds.alpha import raised
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.crown import answers, lower
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.step import Box
from robustbench_local.core.threat import Norm

PARTS = 32  # that are split together


@dataclass(frozen=True)
class Parts:
    """Of one image, and one row: bounds (P,), and the signs (P, *shape) supposed of each place that a ReLU reads."""

    bounds: Tensor
    signs: dict[int, Tensor]

    def of(self, some: Tensor) -> Parts:
        return Parts(self.bounds[some], {place: each[some] for place, each in self.signs.items()})

    def along(self, other: Parts) -> Parts:
        signs = {place: torch.cat([each, other.signs[place]]) for place, each in self.signs.items()}
        return Parts(torch.cat([self.bounds, other.bounds]), signs)


def branched(network: Network, boxes: list[Box], ball: Ball, rows: Tensor, bounds: Tensor, seconds: float) -> Tensor:
    """Lower bounds (N, R) of rows (N, R, K) times the logits, not below bounds (N, R): so many seconds an image.

    An image is left as soon as one of its rows cannot be raised above 0 in time, or falls.
    """
    found = bounds.clone()
    for image in range(len(rows)):
        alone = torch.tensor([image], device=rows.device)
        own = [box.of(alone) for box in boxes]
        end = time.thread_time() + seconds
        for row in bounds[image].argsort().tolist():
            if bounds[image, row] > 0:
                break
            one = rows[alone][:, row : row + 1]
            found[image, row] = _least(network, own, ball.of(alone), one, bounds[image, row], end)
            if found[image, row] <= 0:
                break
    return found


def _least(network: Network, boxes: list[Box], ball: Ball, row: Tensor, bound: Tensor, end: float) -> Tensor:
    """Of one image: the least bound of all parts, when none is left at or below 0, or at the end."""
    places = {placed.inputs[0] for placed in network.steps if isinstance(placed.step, ReLU)}
    left = Parts(bound.view(1), {place: torch.zeros_like(boxes[place].low) for place in places})
    closed = bound.new_full((), torch.inf)
    while len(left.bounds) and time.thread_time() < end:
        order = left.bounds.argsort()
        some, left = left.of(order[:PARTS]), left.of(order[PARTS:])
        halves = _halves(network, boxes, ball, row, some)
        if halves is None:
            return some.bounds.min()
        open_ = (halves.bounds <= 0).nonzero()[:, 0]
        closed = closed.minimum(halves.bounds.masked_fill(halves.bounds <= 0, torch.inf).min())
        left = left.along(halves.of(open_))
    return torch.cat([left.bounds, closed.view(1)]).min()


def _within(boxes: list[Box], parts: Parts) -> list[Box]:
    """The intervals of every part: those of the image, and what is supposed."""
    count = len(parts.bounds)
    found = [Box(*(end.expand(count, *end.shape[1:]) for end in box)) for box in boxes]
    for place, signs in parts.signs.items():
        low, high = found[place]
        found[place] = Box(
            torch.where(signs > 0, low.clamp(min=0), low), torch.where(signs < 0, high.clamp(max=0), high)
        )
    return found


def _halves(network: Network, boxes: list[Box], ball: Ball, row: Tensor, parts: Parts) -> Parts | None:
    """Each part in two, with their bounds; None where there is an image that falls, or nothing to split."""
    count, end = len(parts.bounds), len(network.steps)
    seen: dict[int, Tensor] = {}
    balls = ball.of(torch.zeros(count, dtype=torch.long, device=row.device))
    within = _within(boxes, parts)
    lower(network, within, balls, end, row, seen=seen)
    if _falls(network, balls, row, seen[0]):
        return None
    slack = {place: _slack(network, within, seen, place).flatten(1) for place in parts.signs}
    all_slack = torch.cat(list(slack.values()), 1)
    most, chosen = all_slack.max(1)
    if bool((most <= 0).any()):
        return None
    pick = torch.nn.functional.one_hot(chosen, all_slack.shape[1]).to(row)
    split = pick.split([each.shape[1] for each in slack.values()], 1)
    signs = {
        place: torch.cat([each + new.view_as(each), each - new.view_as(each)])
        for (place, each), new in zip(parts.signs.items(), split, strict=True)
    }
    halves = Parts(parts.bounds.repeat(2), signs)
    balls = ball.of(torch.zeros(2 * count, dtype=torch.long, device=row.device))
    bounds = raised(network, _within(boxes, halves), balls, end, row, signs=signs)[:, 0]
    return Parts(bounds.maximum(halves.bounds), signs)


def _slack(network: Network, boxes: list[Box], seen: dict[int, Tensor], place: int) -> Tensor:
    """(P, *shape): how far the lines of the ReLUs that read a place may be from them, times their coefficients."""
    low, high = boxes[place].low.clamp(max=0), boxes[place].high.clamp(min=0)
    over, under = -low * high / (high - low).clamp(min=1e-300), high.minimum(-low)
    found = torch.zeros_like(low)
    for here, placed in enumerate(network.steps, 1):
        if isinstance(placed.step, ReLU) and placed.inputs[0] == place and here in seen:
            above = seen[here][:, 0]
            found = found + above.clamp(min=0) * under - above.clamp(max=0) * over
    return found


def _falls(network: Network, balls: Ball, row: Tensor, coefficients: Tensor) -> bool:
    """Whether an image at which a part's bound is attained, a corner of the ball, has a margin below 0."""
    if balls.norm not in (Norm.LINF, Norm.NONE):
        return False
    corners = torch.where(coefficients[:, 0] > 0, *balls.box)
    logits = answers(network, corners)
    highest = (row[:, 0].clamp(min=0) * logits.high + row[:, 0].clamp(max=0) * logits.low).sum(1)
    return bool((highest < 0).any())
