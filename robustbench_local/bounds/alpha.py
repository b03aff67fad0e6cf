"""alpha-CROWN (Xu et al. 2021, arXiv:2011.13824): the lines below ReLUs are chosen by gradient, for each bound apart.

Any slope in [0, 1] gives a bound that holds, rounding included, so the best of all that were tried holds as well. A
tighter interval never makes the best choice worse, so the intervals of inner places are raised one after another, each
for itself, and then the margins.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.crown import Lines, lower, tightened
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.step import Box

STEPS = 20  # of Adam for margins
INNER_STEPS = 10  # and for the interval of an inner value
RATE = 0.5  # of the first step, in units of a slope
DECAY = 0.98  # of the rate, from step to step


def raised(
    network: Network, boxes: list[Box], ball: Ball, place: int, rows: Tensor, steps: int = STEPS, enough: float = 0.0
) -> Tensor:
    """As crown.lower, never lower: the best (N, R) bounds over so many choices of slopes, CROWN's own the first.

    Ends when all are above enough.
    """
    slopes = _first(network, boxes, place, rows.shape[1])
    if not any(each.numel() for each in slopes.values()):
        return lower(network, boxes, ball, place, rows)
    best = rows.new_full((len(ball.x), rows.shape[1]), -torch.inf)
    with torch.enable_grad():
        chosen = [each.requires_grad_() for each in slopes.values()]
        ascent = torch.optim.Adam(chosen, lr=RATE, maximize=True)
        rates = torch.optim.lr_scheduler.ExponentialLR(ascent, DECAY)
        for left in range(steps, -1, -1):
            bounds = lower(network, boxes, ball, place, rows, Lines(slopes))
            best = best.maximum(bounds.detach())
            if not left or not bounds.requires_grad or bool((best > enough).all()):
                break
            ascent.zero_grad()
            bounds.sum().backward()
            ascent.step()
            rates.step()
            with torch.no_grad():
                for each in chosen:
                    each.clamp_(0, 1)
    return best


def retightened(network: Network, ball: Ball, boxes: list[Box]) -> list[Box]:
    """Intervals of every place within boxes, tightened by slopes of their own."""
    return tightened(network, ball, partial(raised, steps=INNER_STEPS, enough=torch.inf), boxes)


def _first(network: Network, boxes: list[Box], place: int, rows: int) -> dict[int, Tensor]:
    """CROWN's own slopes (N, R, U) of every ReLU before a place, for each row apart."""
    found = {}
    for here, placed in enumerate(network.steps[:place], 1):
        if isinstance(placed.step, ReLU):
            found[here] = placed.step.slopes(boxes[placed.inputs[0]]).unsqueeze(1).repeat(1, rows, 1)
    return found
