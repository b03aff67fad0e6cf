"""One-pixel attack: differential evolution over where a pixel lies and what colour it takes, for all images at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks._random_search import settled
from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import IterativeAttack, State
from robustbench_local.core.blocks import at_once
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, did_you_mean
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

STRATEGIES = ("rand1", "best1")
STARTS = ("normal", "latin_hypercube")
GENERATIONS = 10  # that a budget is to suffice for, at least


@dataclass(frozen=True)
class Evolution:
    """Differential evolution (Storn and Price 1997) of populations (N, P, G) in the unit cube.

    A mutant is base + f (b - c); base is a third member (rand1) or the best one (best1). A pair f is a range, of which
    each sample draws anew in every generation. crossover: the chance of each gene to come from the mutant (one does in
    any case), so that 1 takes the mutant whole. A gene outside the cube is drawn anew. SciPy does all this likewise.
    """

    population: int
    generations: int
    f: float | tuple[float, float]
    crossover: float
    strategy: str
    start: str

    def __post_init__(self) -> None:
        if self.population < 4:
            raise ConfigError(f"population is {self.population}: a mutant needs 4 members or more")
        check_counts(self, "generations")
        if not 0 < self.range[0] <= self.range[1] <= 2:
            raise ConfigError(f"f is {self.f}: a number in (0, 2], or a pair of them, the lower first")
        if not 0 <= self.crossover <= 1:
            raise ConfigError(f"crossover is {self.crossover}: a probability in [0, 1]; 1 takes the mutant whole")
        for name, known in (("strategy", STRATEGIES), ("start", STARTS)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f'{name} "{value}" is unknown{did_you_mean(value, known)}: one of {", ".join(known)}')

    @property
    def range(self) -> tuple[float, float]:
        return self.f if isinstance(self.f, tuple) else (self.f, self.f)

    def offspring(self, genes: Tensor, fitness: Tensor, draws: Draws) -> Tensor:
        """One child of every member: genes (N, P, G) and fitness (N, P) -> (N, P, G)."""
        size = genes.shape[1:]
        base, b, c = (_members(genes, chosen) for chosen in _three_others(size[0], draws))
        if self.strategy == "best1":
            base = _members(genes, fitness.argmax(1, keepdim=True))
        low, high = self.range
        mutant = base + (low + (high - low) * draws.uniform(1, 1).to(genes)) * (b - c)
        crossed = draws.uniform(*size) < self.crossover
        crossed = crossed.scatter(2, draws.integers(size[1], size[0], 1), True)
        child = torch.where(crossed, mutant, genes)
        return torch.where((child < 0) | (child > 1), draws.uniform(*size).to(genes), child)


PRESETS: Mapping[str, Evolution] = MappingProxyType(
    {
        "su2019": Evolution(400, 100, 0.5, 1.0, "rand1", "normal"),
        "best1bin": Evolution(400, 75, (0.5, 1.0), 1.0, "best1", "latin_hypercube"),
    }
)


@dataclass(frozen=True)
class OnePixel(IterativeAttack):
    """Evolve rows, columns and colours of k pixels; the fittest lowers the true class's probability most.

    Su et al. 2019. The fitness is the log odds of that probability, which orders members as the probability does and
    does not saturate; targeted, that of the target's. A child takes its parent's place where it is no less fit.

    preset: "su2019", the paper's evolution (rand/1, f 0.5, no crossover, 400 members, 100 generations; colours start
    normal around mid-grey), or "best1bin", SciPy's best/1 with f drawn from 0.5 to 1, 400 members and 75 generations,
    started as a Latin hypercube. population, generations, f, crossover, strategy and start change a preset.
    A preset's population is no more than a tenth of the budget of forward passes, where one is given, but 4 at least.
    pixels: how many, by default the eps of threat l0:k. Cost: population * (generations + 1) forwards, no backwards.

    population: how many members, at least 4. generations: how many, at least 1. f: the weight of differences, in (0,
    2], or the two between which it is drawn. crossover: the probability that a coordinate comes from the mutant, in [0,
    1]. strategy: whose mutants, rand1 or best1. start: normal or latin_hypercube, how the first members are drawn.
    """

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    summary: ClassVar[str] = "differential evolution of a few pixels, by scores alone"
    paper: ClassVar[str] = "Su et al. 2019, arXiv:1710.08864"
    steps: ClassVar[Any] = property(lambda self: self.evolution.generations)  # type: ignore[misc]

    preset: str = "su2019"
    pixels: int | None = None
    population: int | None = None
    generations: int | None = None
    f: float | tuple[float, float] | None = None
    crossover: float | None = None
    strategy: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            known = ", ".join(PRESETS)
            raise ConfigError(f'preset "{self.preset}" is unknown{did_you_mean(self.preset, PRESETS)}: one of {known}')
        if self.pixels is not None:
            check_counts(self, "pixels")
        self.evolution  # noqa: B018  its settings are checked here

    @property
    def evolution(self) -> Evolution:
        given = {field.name: getattr(self, field.name) for field in fields(Evolution)}
        return replace(PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None})

    def rounds(self, oracle: Oracle) -> int:
        if self.pixels is not None and self.pixels > oracle.threat.eps:
            raise ConfigError(f"pixels is {self.pixels}, and the threat {oracle.threat} allows {oracle.threat.eps:g}")
        first = self._members(oracle) * oracle.eot
        if oracle.budget is not None and oracle.budget < 2 * first:
            warnings.warn(
                f"one_pixel may make {oracle.budget} forward passes of an image, and a generation takes {first}:"
                f" nothing evolves below {2 * first}. Give a larger budget or a smaller population (4 or more)",
                stacklevel=2,
            )
        return int(oracle.threat.eps > 0)  # without a pixel there is nothing to evolve

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        draws = draws.stream("start")
        size = self._members(oracle), self.pixels or int(threat.eps)
        if self.evolution.start == "normal":
            colours = (0.5 + 0.5 * draws.normal(*size, x.shape[1])).clamp(0, 1)
            genes = torch.cat([draws.uniform(*size, 2), colours], 3).flatten(2)
        else:
            genes = _latin_hypercube(size[0], size[1] * (2 + x.shape[1]), draws)
        genes = genes.to(x)
        return self._fittest(genes, self._fitness(genes, oracle, x, y), x)

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        child = self.evolution.offspring(state["genes"], state["fitness"], draws)
        fitness = self._fitness(child, oracle, x, y)
        fitter = fitness >= state["fitness"]
        genes = torch.where(fitter.unsqueeze(2), child, state["genes"])
        return self._fittest(genes, torch.where(fitter, fitness, state["fitness"]), x)

    def _members(self, oracle: Oracle) -> int:
        if self.population is not None or oracle.budget is None:
            return self.evolution.population
        return min(self.evolution.population, max(4, oracle.budget // (GENERATIONS * oracle.eot)))

    def _fittest(self, genes: Tensor, fitness: Tensor, x: Tensor) -> State:
        best = _members(genes, fitness.argmax(1, keepdim=True))
        return {"x_adv": painted(x, best)[:, 0], "genes": genes, "fitness": fitness, "best_loss": fitness.amax(1)}

    def _fitness(self, genes: Tensor, oracle: Oracle, x: Tensor, y: Tensor) -> Tensor:
        """(N, P). Some samples at a time, or of large images some members: all may not fit memory."""
        size = genes.shape[1]
        few = at_once(CHUNK, x[0].numel(), values=2**25)
        logits = torch.cat(
            [
                torch.cat([oracle[rows].logits(painted(x[rows], some)) for some in genes[rows].split(few, 1)], 1)
                for rows in torch.arange(len(x), device=x.device).split(max(1, few // size))
            ]
        )
        odds = log_odds(logits.flatten(0, 1), y.repeat_interleave(size)).view(genes.shape[:2])
        odds = settled(odds, oracle.unit[:, None])
        return odds if oracle.targeted else -odds

    def version_in(self, norm: Norm, budget: int | None = None) -> int:
        return self.version + (budget is not None and self.population is None)  # a budget makes a preset's smaller

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.evolution.population * (self.evolution.generations + 1), 0


CHUNK = 4096  # images that are painted at a time, at most


def painted(x: Tensor, genes: Tensor) -> Tensor:
    """x (N, C, H, W) with each member's pixels, genes (N, P, k * (2 + C)) in [0, 1] -> (N, P, C, H, W)."""
    count, channels, height, width = x.shape
    genes = genes.unflatten(2, (-1, 2 + channels))
    row = (genes[..., 0] * height).long().clamp(max=height - 1)
    column = (genes[..., 1] * width).long().clamp(max=width - 1)
    place = (row * width + column)[..., None, None].expand(*genes.shape[:3], 1, channels)
    images = x.permute(0, 2, 3, 1).reshape(count, 1, height * width, channels).repeat(1, genes.shape[1], 1, 1)
    for k in range(genes.shape[2]):  # in turn: of two pixels in one place the later one shows
        images.scatter_(2, place[:, :, k], genes[:, :, k : k + 1, 2:])
    return images.view(count, -1, height, width, channels).permute(0, 1, 4, 2, 3)


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log p_y / (1 - p_y), (N,)."""
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)


def _members(genes: Tensor, index: Tensor) -> Tensor:
    """genes (N, P, G) at index (N, M) -> (N, M, G)."""
    return genes.gather(1, index.unsqueeze(2).expand(-1, -1, genes.shape[2]))


def _three_others(size: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """(N, P) thrice: for each member three different ones, none itself, all equally likely."""
    first, second, third = (draws.integers(size - k, size) for k in (1, 2, 3))
    second = second + (second >= first)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    third = third + (third >= low)
    third = third + (third >= high)
    me = torch.arange(size, device=first.device)
    return tuple((me + 1 + offset) % size for offset in (first, second, third))  # type: ignore[return-value]


def _latin_hypercube(size: int, genes: int, draws: Draws) -> Tensor:
    """(N, P, G): of each gene one value in every P-th of [0, 1)."""
    return (draws.uniform(size, genes).argsort(1) + draws.uniform(size, genes)) / size
