"""Square attack: random search with square-shaped changes, and the margin as its only guide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._random_search import RandomSearch, phase
from robustbench_local.config.settings import check_counts
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of p, for 10,000 queries
TINY = 1e-12
BLOCK = 32  # proposals after which samples that look ahead wait for each other


@dataclass(frozen=True)
class Square(RandomSearch):
    """Propose a change within one random square; keep it where the loss rises (Andriushchenko et al. 2020).

    L∞ (Algorithm 2): the square moves to a face of the ball, one random sign per channel. L2 (Algorithm 3): the budget
    of a second square, and what the box left unused, moves into the first one, as two peaks of opposite sign. L1
    (Croce and Hein 2021, section 4.3): the same with sharper peaks, then projected onto ball and box.

    steps: proposals, 5,000 as in AutoAttack. p: the share of the image that the first squares cover; it is halved on
    the paper's schedule, stretched to `steps`. loss is raised without targets, targeted_loss with them.
    stretch=False takes the schedule as it is, that of 10,000 proposals, however few are made: as in AutoAttack.
    lookahead: so many proposals are asked about at once, which is cheaper for few images. The search is the same to
    the last proposal: those after one that is kept are made anew, and were asked about in vain.
    Cost: restarts * (steps + 1) forwards, no backwards; and up to lookahead - 1 forwards more per proposal kept.

    stretch: whether the schedule of p is stretched to `steps`.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    summary: ClassVar[str] = "random search with squares, by scores alone"
    paper: ClassVar[str] = "Andriushchenko et al. 2020, arXiv:1912.00049; L1: Croce and Hein 2021, arXiv:2103.01208"

    steps: int = 5000
    p: float = 0.8
    stretch: bool = True
    lookahead: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "lookahead")
        if not 0 < self.p <= 1:
            raise ConfigError(f"p is {self.p}: the share of the image that a first square covers, in (0, 1]")

    @property
    def stride(self) -> int:
        return 1 if self.lookahead == 1 else BLOCK

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        if self.lookahead == 1:
            return super().step(state, oracle, x, y, threat, draws, i)
        block = range(i, min(i + BLOCK, self.steps))
        for _, alike in groupby(block, self.share if oracle.unordered else None):
            state = self._several(state, oracle, x, y, threat, draws, list(alike))
        return state

    def _several(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, block: list[int]
    ) -> State:
        """These proposals, one after the other in effect, with squares of one size; each sample at its own pace."""
        state, many, fan = dict(state), len(block), draws.expand(block)
        places = torch.arange(many, device=x.device)
        after = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)  # the first proposal still to be made
        while len(pairs := (_ahead(places, after, self.lookahead) & ~oracle.done[:, None]).flatten().nonzero()[:, 0]):
            rows = pairs // many
            old = {name: value[rows] for name, value in state.items()}
            new = self.propose(old, x[rows], threat, fan[pairs], block[0], targeted=oracle.targeted)
            new = self._scored(new, oracle[rows], y[rows])
            better = torch.zeros(len(x) * many, dtype=torch.bool, device=x.device)
            better[pairs] = new["loss"] > old["loss"]
            first = torch.where(better.view(-1, many), places, after + self.lookahead - 1).amin(1, keepdim=True)
            taken = (better[pairs] & (pairs % many == first[rows, 0])).nonzero()[:, 0]
            for name, value in state.items():
                state[name] = value.index_copy(0, rows[taken], new[name][taken])
            after = first + 1
        return state

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> State:
        return {"x_adv": (stripes if threat.norm is Norm.LINF else tiles)(x, threat, draws)}

    def propose(self, state: State, x: Tensor, threat: ThreatModel, draws: Draws, i: int, *, targeted: bool) -> State:
        side = math.sqrt(self.share(i) * x[0, 0].numel())
        return {"x_adv": (recoloured if threat.norm is Norm.LINF else moved)(state["x_adv"], x, threat, draws, side)}

    def share(self, i: int) -> float:
        """The share of the image that the square of proposal i covers."""
        return self.p / 2.0 ** phase(i, self.steps if self.stretch else 10_000, HALVINGS)


def _ahead(places: Tensor, after: Tensor, count: int) -> Tensor:
    """(N, P) bool: the next `count` places from `after` (N, 1) on."""
    return (places >= after) & (places < after + count)


def stripes(x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    """Vertical stripes one pixel wide at +-eps."""
    return threat.project(x + threat.eps * signs(draws, x.shape[1], 1, x.shape[3]).to(x), x)


def recoloured(x_adv: Tensor, x: Tensor, threat: ThreatModel, draws: Draws, side: float) -> Tensor:
    """A square at +-eps, the sign drawn per channel; where that changes nothing, at the opposite signs."""
    height, width = x.shape[2:]
    size = min(max(round(side), 1), height, width)
    drawn = draws.uniform(2 + x.shape[1])  # one call for all: it is made for every proposal
    row, column = ((drawn[:, k] * (side - size + 1)).long() for k, side in enumerate((height, width)))
    here = window(row, column, size, width)[:, None].expand(-1, x.shape[1], -1)
    colour = torch.where(drawn[:, 2:, None] < 0.5, -threat.eps, threat.eps).to(x)
    clean, now = x.flatten(2).gather(2, here), x_adv.flatten(2)
    new = (clean + colour).clamp_(0, 1)
    wasted = (new == now.gather(2, here)).flatten(1).all(1).view(-1, 1, 1)
    new = torch.where(wasted, (clean - colour).clamp_(0, 1), new)
    return now.scatter(2, here, new).view_as(x)


def tiles(x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    """A grid of five by five tiles with two peaks each, the sign drawn per tile and channel."""
    count, channels, height, width = x.shape
    size = max(min(height, width) // 5, 1)
    down, across = height // size, width // size
    sign = signs(draws, channels, down, across)[..., None, None]
    tile = sign * peaks(size, threat.norm, draws, down, across).unsqueeze(1)
    top, left = (height - down * size) // 2, (width - across * size) // 2
    delta = torch.zeros_like(x)
    delta[:, :, top : top + down * size, left : left + across * size] = (
        tile.transpose(3, 4).reshape(count, channels, down * size, across * size).to(x)
    )
    return placed(delta, x, threat)


def moved(x_adv: Tensor, x: Tensor, threat: ThreatModel, draws: Draws, side: float) -> Tensor:
    """The budget of two squares, and what is unused, goes into the first: its content plus two peaks."""
    channels, height, width = x.shape[1:]
    power = 1 if threat.norm is Norm.L1 else 2
    size = min(max(round(side), 3) // 2 * 2 + 1, height, width)
    delta = (x_adv - x).flatten(2)
    unused = (threat.eps**power - length(delta.flatten(1), power) ** power).clamp_min(0).view(-1, 1, 1)
    here, there = (window(*corner(draws, height, width, size), size, width) for _ in range(2))
    here, there = (index[:, None].expand(-1, channels, -1) for index in (here, there))
    old = delta.gather(2, here)
    size_here = length(old, power)
    delta = delta.scatter(2, here, 0)
    budget = size_here**power + length(delta.gather(2, there), power) ** power + unused / channels
    delta = delta.scatter(2, there, 0)
    new = signs(draws, channels, 1) * peaks(size, threat.norm, draws).flatten(1)[:, None]
    new = new.to(x) + old / (size_here + TINY)
    share = channels * budget if threat.norm is Norm.L1 else budget.sqrt()
    delta = delta.scatter(2, here, new / (length(new, power) + TINY) * share)
    return placed(delta.view_as(x), x, threat)


def placed(delta: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """x + delta inside ball and box: L1 projects, L2 stretches to the sphere and clips."""
    if threat.norm is Norm.L1:
        return threat.project(x + delta, x)
    stretch = threat.eps / (length(delta.flatten(1), 2) + TINY)
    return (x + delta * stretch.view(-1, 1, 1, 1)).clamp(0, 1)


def peaks(size: int, norm: Norm, draws: Draws, *shape: int) -> Tensor:
    """(N, *shape, size, size), of length 1: a peak above and its negative below, or the same lying on its side."""
    both = _pair_of_peaks(size, norm, draws.ids.device, draws.dtype)
    return torch.where(draws.uniform(*shape, 1, 1) < 0.5, both, both.T)


@cache
def _pair_of_peaks(size: int, norm: Norm, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, size): the peak above, its negative below. Kept, so that it goes to the device once."""
    power = 1 if norm is Norm.L1 else 2
    halves = [peak(height, size, norm) for height in (size // 2, size - size // 2)]
    both = torch.cat([half / (half.norm(p=power) + TINY) for half in (halves[0], -halves[1])])
    pair: Tensor = both / both.norm(p=power)
    return pair.to(device, dtype)


def peak(height: int, width: int, norm: Norm) -> Tensor:
    """(height, width): at ring m around the middle, 1 / j^q summed over j > m; q is 2 in L2 and 4 in L1."""
    rings = max(height, width) // 2 + 1
    terms = torch.arange(1, rings + 1, dtype=torch.float64) ** (-4 if norm is Norm.L1 else -2)
    sums = terms.flip(0).cumsum(0).flip(0)
    down, across = ((torch.arange(side) - side // 2).abs() for side in (height, width))
    return sums[torch.maximum(down[:, None], across[None])]


def signs(draws: Draws, *shape: int) -> Tensor:
    return 2.0 * draws.integers(2, *shape) - 1


def corner(draws: Draws, height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """(N,) rows and columns of the upper left corner of a square that lies inside the image."""
    return draws.integers(height - size + 1), draws.integers(width - size + 1)


def window(row: Tensor, column: Tensor, size: int, width: int) -> Tensor:
    """(N, size * size): where a square's pixels lie in a flattened image."""
    step = torch.arange(size, device=row.device)
    inside = step[:, None] * width + step
    return (row * width + column)[:, None] + inside.flatten()


def length(values: Tensor, power: int) -> Tensor:
    """The norm along the last dimension, which is kept."""
    return values.abs().sum(-1, True) if power == 1 else values.square().sum(-1, True).sqrt()
