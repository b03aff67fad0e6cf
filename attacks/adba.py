"""ADBA-md: two directions compared at one radius, by a few labels, without searching for the boundary along either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._decision import succeeds
from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

# The authors' fit of how far boundaries lie: density a / (k + d)^b + c, k the distance from the largest radius, a share
A, B, C, D = 0.03133292769944518, 3.0659694403842903, 0.16755646970211466, 0.13403850261898806
HALVINGS = 20  # of an interval, to find the median of that density in it


@dataclass(frozen=True)
class ADBA(IterativeAttack):
    """Turn the signs of blocks of the perturbation, ever smaller ones (Wang et al. 2024, Algorithms 1 and 2).

    A perturbation is a radius times signs, all + or all - at first. A step halves a block of the image, and turns
    either half: two directions, both asked at the best radius. Where both succeed, smaller radii are asked until one
    succeeds alone, each the median of the authors' distribution of boundaries between the last two; that direction is
    kept, and the smallest radius at which it succeeded. Where one succeeds, it is kept at the old radius, and where
    none does, nothing is. After the whole image come its 2 halves, 4 quarters, and so on; at last each pixel in turn.
    2,500 steps are about the authors' 10,000 queries.
    Cost: at most (steps + 1) * 2 (searches + 1) + 1 forwards, about 4 a step in the paper, no backwards.

    steps: pairs of directions compared, at least 1. searches: radii asked to tell two directions apart, at most.
    """

    access: ClassVar[Access] = Access.LABELS
    minimises: ClassVar[bool] = True
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    summary: ClassVar[str] = "signs of ever smaller blocks, two directions compared by a few labels"
    paper: ClassVar[str] = "Wang et al. 2024, arXiv:2406.04998"

    steps: int = 2500
    searches: int = 8

    def __post_init__(self) -> None:
        check_counts(self, "steps", "searches")

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        if oracle.targeted:
            raise ConfigError("adba starts from black and from white images: it takes no targets")
        signs = torch.ones_like(x)
        state = {"x_adv": x.clone(), "signs": signs, "radius": x.new_ones(len(x))}
        return self._compared(state, torch.stack([signs, -signs], 1), oracle, x, y)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        pair = state["signs"].flatten(1)[:, None].repeat(1, 2, 1)
        first, middle, last = halved(i, x[0].numel())
        pair[:, 0, first:middle] *= -1
        pair[:, 1, middle:last] *= -1
        return self._compared(state, pair.view(-1, 2, *x.shape[1:]), oracle, x, y)

    def _compared(self, state: State, pair: Tensor, oracle: Oracle, x: Tensor, y: Tensor) -> State:
        """The better of two directions (N, 2, C, H, W), where either succeeds at the state's radius."""
        largest, radius = state["radius"], state["radius"].clone()
        low, high = torch.zeros_like(largest), largest.clone()
        everyone = torch.arange(len(x), device=x.device)
        won = self._successes(oracle, x, y, pair, radius)
        kept, better = won.any(1), won.long().argmax(1)
        rows = won.all(1).nonzero()[:, 0]
        for _ in range(self.searches):
            if not len(rows):
                break
            tried = median(low[rows], high[rows], largest[rows])
            won = self._successes(oracle[rows], x[rows], y[rows], pair[rows], tried)
            some, both = won.any(1), won.all(1)
            better[rows] = torch.where(some, won.long().argmax(1), better[rows])
            radius[rows] = torch.where(some, tried, radius[rows])
            low[rows] = torch.where(some, low[rows], tried)
            high[rows] = torch.where(both, tried, high[rows])
            rows = rows[some == both]
        return {
            "x_adv": _where(kept, moved(x, radius, pair[everyone, better]), state["x_adv"]),
            "signs": _where(kept, pair[everyone, better], state["signs"]),
            "radius": radius,
        }

    def _successes(self, oracle: Oracle, x: Tensor, y: Tensor, pair: Tensor, radius: Tensor) -> Tensor:
        """(N, 2) bool: whether these directions succeed at that radius (N,)."""
        return succeeds(oracle, moved(x[:, None], radius, pair), y)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return (self.steps + 1) * 2 * (self.searches + 1) + 1, 0


def moved(x: Tensor, radius: Tensor, signs: Tensor) -> Tensor:
    """The image so far (N,) in that direction (N, ...), in the box."""
    return (x + radius.view(-1, *[1] * (signs.ndim - 1)) * signs).clamp(0, 1)


def halved(i: int, size: int) -> tuple[int, int, int]:
    """Where the block of step i begins, is halved and ends, in an image of so many numbers, laid out in a row.

    1 block, 2, 4 and so on, until there are as many as numbers; of a block of one number a half is empty.
    """
    level = (i + 1).bit_length() - 1
    count = min(2**level, size)
    block = (i + 1 - 2**level) % count
    first, last = block * size // count, (block + 1) * size // count
    return first, (first + last) // 2, last


def median(low: Tensor, high: Tensor, largest: Tensor) -> Tensor:
    """Of the authors' distribution of boundaries up to the radius `largest`, between low and high; all (N,)."""

    def below(share: Tensor) -> Tensor:
        return A * (share + D) ** (1 - B) / (1 - B) + C * share

    near, far = 1 - high / largest, 1 - low / largest  # distances from the largest, shares of it
    half = (below(near) + below(far)) / 2
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        before = below(middle) < half
        near, far = torch.where(before, middle, near), torch.where(before, far, middle)
    return (1 - (near + far) / 2) * largest


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, 1, 1, 1), yes, no)
