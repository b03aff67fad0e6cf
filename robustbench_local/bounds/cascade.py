"""From cheap to dear: margins by the stages of a method, each of which is given what no stage before it certified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from robustbench_local.bounds.alpha import raised, retightened
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.branching import branched
from robustbench_local.bounds.crown import lower, nearest, price, tightened
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.rounding import LARGEST
from robustbench_local.bounds.step import Box
from robustbench_local.core.bound_methods import Method

AFFORDABLE = 5e7  # coefficients, up to which intervals are raised by slopes of their own: about a minute an image

# boxes of a network's places, and rows (N, R, K) times its logits: tighter boxes, and lower bounds (N, R)
Stage = Callable[[Network, Ball, list[Box], Tensor], tuple[list[Box], Tensor]]


def _intervals(network: Network, ball: Ball, boxes: list[Box], rows: Tensor) -> tuple[list[Box], Tensor]:
    return boxes, nearest(network, boxes, rows)


def _crown(network: Network, ball: Ball, boxes: list[Box], rows: Tensor) -> tuple[list[Box], Tensor]:
    boxes = tightened(network, ball)
    return boxes, nearest(network, boxes, rows).maximum(lower(network, boxes, ball, len(network.steps), rows))


def _outer(network: Network, ball: Ball, boxes: list[Box], rows: Tensor) -> tuple[list[Box], Tensor]:
    return boxes, raised(network, boxes, ball, len(network.steps), rows)


def _inner(network: Network, ball: Ball, boxes: list[Box], rows: Tensor) -> tuple[list[Box], Tensor]:
    if price(network, ball, boxes) > AFFORDABLE:
        return boxes, rows.new_full(rows.shape[:2], -torch.inf)
    return _outer(network, ball, retightened(network, ball, boxes), rows)


def _branched(network: Network, ball: Ball, boxes: list[Box], rows: Tensor, seconds: float) -> tuple[list[Box], Tensor]:
    boxes, bounds = _outer(network, ball, boxes, rows)
    return boxes, branched(network, boxes, ball, rows, bounds, seconds)


STAGES: dict[Method, tuple[Stage, ...]] = {
    "ibp": (_intervals,),
    "crown": (_crown,),
    "alpha_crown": (_intervals, _crown, _outer, _inner),
}


def stages(method: Method, seconds: float) -> tuple[Stage, ...]:
    """The stages of a method, the cheapest first. seconds: of branch and bound for an image."""
    if method == "branch_and_bound":
        return (*STAGES["alpha_crown"], partial(_branched, seconds=seconds))
    return STAGES[method]


def least_margins(network: Network, ball: Ball, y: Tensor, classes: int, stages: Sequence[Stage]) -> Tensor:
    """(N,) lower bounds of the least z_y - z_j over classes j other than y, of the first stage that certifies."""
    own = torch.eye(classes, dtype=torch.float64, device=y.device)
    others = (own[y] == 0).nonzero()[:, 1].view(len(y), -1)
    rows = own[y].unsqueeze(1) - own[others]
    boxes = network.intervals(ball)
    margins = rows.new_full(rows.shape[:2], -torch.inf)
    found, left = margins[:, 0].clone(), torch.arange(len(y), device=y.device)
    for stage in stages:
        boxes, margins = _with_hardest(stage, network, ball, boxes, rows, margins)
        largest = torch.stack([box.magnitude.flatten(1).amax(1) for box in boxes]).amax(0)
        found[left] = found[left].maximum(margins.amin(1).masked_fill(~(largest < LARGEST), -torch.inf))
        still = (found[left] <= 0).nonzero()[:, 0]
        if not len(still):
            break
        left, rows, margins = left[still], rows[still], margins[still]
        ball, boxes = ball.of(still), [box.of(still) for box in boxes]
    return found


def _with_hardest(
    stage: Stage, network: Network, ball: Ball, boxes: list[Box], rows: Tensor, margins: Tensor
) -> tuple[list[Box], Tensor]:
    """A stage on the lowest rows of every image, as many as are open of any: its boxes, and the margins raised."""
    count = max(1, int((margins <= 0).sum(1).max()))
    chosen = margins.argsort(1)[:, :count]
    boxes, bounds = stage(network, ball, boxes, rows.gather(1, chosen.unsqueeze(2).expand(-1, -1, rows.shape[2])))
    return boxes, margins.scatter(1, chosen, margins.gather(1, chosen).maximum(bounds))
