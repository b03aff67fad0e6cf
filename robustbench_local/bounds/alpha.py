"""alpha-CROWN (Xu et al. 2021, arXiv:2011.13824): the lines below ReLUs are chosen by gradient, for each bound apart.

Any slope in [0, 1] gives a bound that holds, rounding included, so the best of all that were tried holds as well. A
tighter interval never makes the best choice worse, so the intervals of inner places are raised one after another, each
for itself, and then the margins.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

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
PRICE_RATE = 0.1  # of the first step of a multiplier, in units of a coefficient
DECAY = 0.98  # of rates, from step to step


def raised(
    network: Network,
    boxes: list[Box],
    ball: Ball,
    place: int,
    rows: Tensor,
    steps: int = STEPS,
    enough: float = 0.0,
    signs: Mapping[int, Tensor] = MappingProxyType({}),
) -> Tensor:
    """As crown.lower, never lower: the best (N, R) bounds over so many choices of slopes, CROWN's own the first.

    Ends when all are above enough. signs: (N, *shape) of what is at a place, 1 or -1 where it is supposed not to be
    below or above 0, else 0: what is supposed is priced by multipliers, which are chosen with the slopes.
    """
    slopes = _first(network, boxes, place, rows.shape[1])
    prices = {here: torch.zeros_like(each).unsqueeze(1) for here, each in signs.items()}
    if not prices and not any(each.numel() for each in slopes.values()):
        return lower(network, boxes, ball, place, rows)
    best = rows.new_full((len(ball.x), rows.shape[1]), -torch.inf)
    with torch.enable_grad():
        lines, multipliers = ([each.requires_grad_() for each in some.values()] for some in (slopes, prices))
        groups: list[dict[str, Any]] = [{"params": lines}, {"params": multipliers, "lr": PRICE_RATE}]
        ascent = torch.optim.Adam(groups, lr=RATE, maximize=True)
        rates = torch.optim.lr_scheduler.ExponentialLR(ascent, DECAY)
        for left in range(steps, -1, -1):
            priced = {here: each * signs[here].unsqueeze(1) for here, each in prices.items()}
            bounds = lower(network, boxes, ball, place, rows, Lines(slopes, priced))
            best = best.maximum(bounds.detach())
            if not left or not bounds.requires_grad or bool((best > enough).all()):
                break
            ascent.zero_grad()
            bounds.sum().backward()
            ascent.step()
            rates.step()
            with torch.no_grad():
                for each in lines:
                    each.clamp_(0, 1)
                for each in multipliers:
                    each.clamp_(min=0)
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
