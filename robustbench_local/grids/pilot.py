"""A cell tried out on a few images for a moment: how early they fall, and what its attack takes beside passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import Rejection, call, is_stochastic, rejection
from robustbench_local.core.device import kept_random_state, synchronise
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.oracle import Oracle
from robustbench_local.evaluation.attacker_data import own_images
from robustbench_local.evaluation.search import Search
from robustbench_local.evaluation.snapshot import restored
from robustbench_local.grids.cell import Task


class Passes(NamedTuple):
    """Forward and backward passes of the deployed model, and of its undefended part."""

    forwards: float
    backwards: float
    bare_forwards: float
    bare_backwards: float

    @property
    def asked(self) -> float:
        """Questions to the model, or to its undefended part."""
        return self.forwards + self.bare_forwards

    def plus(self, other: Passes, times: float = 1.0) -> Passes:
        return Passes(*(one + times * another for one, another in zip(self, other, strict=True)))

    def times(self, factor: float) -> Passes:
        return Passes(*(factor * each for each in self))


NONE = Passes(0, 0, 0, 0)
LULL = 16  # calls before which nothing is said about what was given up
LATE = 0.9  # of the calls: an image that was last asked about before is done with


@dataclass(frozen=True)
class Pilot:
    """What a search spent on `tried` images; those that err without an attack spend nothing.

    calls: questions to the model, of however many images. spent: passes of all images together; ended: those of images
    that fell or were given up. alive: which rows of the task's images were neither, kept: what share of them there is
    of those that were alive when half as many questions had been asked. left: of how many images no success is known,
    which of a random model is told by the mean of its draws; lost: how many of these were given up. whole: whether it
    came to its end. seconds: see `clock`.
    """

    tried: int
    calls: int = 0
    spent: Passes = NONE
    ended: Passes = NONE
    alive: tuple[int, ...] = ()
    kept: float = 1.0
    left: int = 0
    lost: int = 0
    whole: bool = True
    seconds: float = 0.0


def clock(device: torch.device) -> float:
    """Seconds of CPU time, which what runs beside does not lengthen; of an accelerator those of the wall."""
    synchronise(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def pilot(
    task: Task, model: nn.Module, asked: int | Sequence[int], seconds: float, *, trained: bool = True
) -> Pilot | None:
    """The task's search on some of its images, for so long at most; None where it dies, or must learn beforehand.

    asked: how many images, at even distances, or which. trained: whether the model's answers mean anything; otherwise
    they are taken for right.
    """
    judge, attack = task.judge, task.cell.attack
    images = judge.sees(task.images)
    rows = torch.arange(asked) * len(images) // asked if isinstance(asked, int) else torch.tensor(asked)
    rows = rows.to(images.ids.device)
    if attack.own_images:
        return None
    with suppress(Exception), restored(model), as_deployed(model), full_float32(), kept_random_state(rows.device):
        x, y = images[rows].contiguous(memory_format=torch.channels_last), images.labels[rows]
        draws = Draws(judge.seed, images.ids[rows])
        with torch.no_grad():
            answers = call(model, x, draws.stream("clean"))
        classes = answers.shape[1] - (rejection(model) is not Rejection.NONE)
        y = y if trained else answers[:, :classes].argmax(1)
        right = answers.argmax(1) == y
        if is_stochastic(model) or isinstance(attack, Corruption):
            right = torch.ones_like(right)
        if not right.any():
            return Pilot(len(rows))
        goal = y if judge.targets is None else (y + 1) % classes
        meter = _Meter()
        search = _Timed(
            attack,
            task.cell.threat,
            judge.targets is not None,
            judge.precision,
            judge.count,
            judge.budget,
            judge.eot,
            judge.adaptive,
            meter=meter,
        )
        ready, _ = search.prepare(model, *own_images(attack, None, x, judge.seed))
        meter.start(clock(x.device) + seconds)
        started, whole = clock(x.device), True
        try:
            ready(model, x[right], goal[right], draws[right])
        except _EnoughError:
            whole = False
        return meter.read(len(rows), rows[right], judge.adaptive, whole, clock(x.device) - started)
    return None


class _EnoughError(Exception):
    """The moment is over."""


@dataclass
class _Meter:
    """The oracles of a search, and how often they asked the model until the moment is over.

    own: calls of the first oracle alone; spent: its forward passes of each image up to the last of them, asked: at
    which of them each image was last asked about.
    """

    ends: float = float("inf")
    calls: int = 0
    own: int = 0
    oracles: list[Oracle] = field(default_factory=list)
    spent: Tensor = field(default_factory=lambda: torch.zeros(0))
    asked: Tensor = field(default_factory=lambda: torch.zeros(0))

    def start(self, ends: float) -> None:
        self.ends, self.calls, self.own, self.oracles = ends, 0, 0, []

    def watch(self, oracle: Oracle) -> None:
        if not self.oracles:
            self.spent, self.asked = oracle.forwards.clone(), torch.zeros_like(oracle.forwards)
        self.oracles.append(oracle)

    def count(self, oracle: Oracle) -> None:
        self.calls += 1
        if oracle is self.oracles[0]:
            self.own += 1
            self.asked = self.asked.where(oracle.forwards == self.spent, self.own)
            self.spent = oracle.forwards.clone()

    def read(self, tried: int, rows: Tensor, adaptive: bool, whole: bool, seconds: float) -> Pilot:
        if not self.oracles:
            return Pilot(tried, alive=tuple(rows.tolist()), left=len(rows), whole=whole, seconds=seconds)
        first = self.oracles[0]
        spent, ended = NONE, NONE
        given_up, kept = self._given_up(first)
        over = first.broken | given_up
        for place, oracle in enumerate(self.oracles):  # after the adaptive one the naive one, on what that left
            bare = place > 0 or not adaptive
            spent = spent.plus(_passes(oracle.forwards, oracle.backwards, bare))
            if oracle is first:
                ended = _passes(oracle.forwards[over], oracle.backwards[over], bare)
        alive, left = tuple(rows[~over].tolist()), int((~first.succeeded).sum())
        lost = int((over & ~first.succeeded).sum())
        return Pilot(tried, self.calls, spent, ended, alive, kept, left, lost, whole, seconds)

    def _given_up(self, first: Oracle) -> tuple[Tensor, float]:
        """Which images were not asked about lately, but had been more than in passing; what share of the others stayed.

        Those of an attack that takes one image after the other may only wait for their turn.
        """
        last = int(self.asked.max())  # of a random model a question is several calls
        late, waits = last * LATE, first.forwards * LULL <= last
        if last < LULL or (waits & ~first.broken).any():
            return (self.asked < late) & ~waits & (last >= LULL), 1.0
        there, before = int((self.asked >= late).sum()), int((self.asked >= late / 2).sum())
        return self.asked < late, (there + 1) / (before + 1)


def _passes(forwards: Tensor, backwards: Tensor, bare: bool) -> Passes:
    each = int(forwards.sum()), int(backwards.sum())
    return Passes(0, 0, *each) if bare else Passes(*each, 0, 0)


@dataclass(frozen=True)
class _Timed(Search):
    """A search whose questions are counted, and that ends when its moment is over."""

    meter: _Meter = field(default_factory=_Meter)

    def _oracle(self, model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Oracle:
        oracle, meter = super()._oracle(model, x, y, draws), self.meter
        answer = oracle._answer

        def counted(x: Tensor, draws: Draws | None) -> Tensor:
            if clock(x.device) > meter.ends:
                raise _EnoughError
            meter.count(oracle)
            return answer(x, draws)

        vars(oracle)["_answer"] = counted
        meter.watch(oracle)
        return oracle
