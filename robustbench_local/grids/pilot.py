"""A cell tried out on a few images for a moment: how early they fall, and what its attack takes beside passes."""

from __future__ import annotations

import time
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

    def plus(self, other: Passes, times: float = 1.0) -> Passes:
        return Passes(*(one + times * another for one, another in zip(self, other, strict=True)))

    def times(self, factor: float) -> Passes:
        return Passes(*(factor * each for each in self))


NONE = Passes(0, 0, 0, 0)
LULL = 16  # calls before which nothing is said about what was given up


@dataclass(frozen=True)
class Pilot:
    """What a search spent on `tried` images; those that err without an attack spend nothing.

    calls: questions to the model, of however many images. spent: passes of all images together; ended: those of images
    that fell or were given up. alive: how many were neither; left: of how many no success is known, which of a random
    model is told by the mean of its draws. whole: whether it came to its end. seconds: see `clock`.
    """

    tried: int
    calls: int = 0
    spent: Passes = NONE
    ended: Passes = NONE
    alive: int = 0
    left: int = 0
    whole: bool = True
    seconds: float = 0.0


def clock(device: torch.device) -> float:
    """Seconds of CPU time, which what runs beside does not lengthen; of an accelerator those of the wall."""
    synchronise(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def pilot(task: Task, model: nn.Module, count: int, seconds: float, *, trained: bool = True) -> Pilot | None:
    """The task's search on `count` of its images, for so long at most; None where it dies, or must learn beforehand.

    trained: whether the model's answers mean anything; otherwise they are taken for right.
    """
    judge, attack = task.judge, task.cell.attack
    images = judge.sees(task.images)
    rows = torch.arange(count, device=images.ids.device) * len(images) // count
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
            return Pilot(count)
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
        return meter.read(count, int(right.sum()), judge.adaptive, whole, clock(x.device) - started)
    return None


class _EnoughError(Exception):
    """The moment is over."""


@dataclass
class _Meter:
    """The oracles of a search, and how often they asked the model until the moment is over.

    looks: the first oracle's forward passes of each image after 1, 2, 4, 8, ... calls, the last two.
    """

    ends: float = float("inf")
    calls: int = 0
    oracles: list[Oracle] = field(default_factory=list)
    looks: list[Tensor] = field(default_factory=list)

    def start(self, ends: float) -> None:
        self.ends, self.calls, self.oracles, self.looks = ends, 0, [], []

    def count(self) -> None:
        self.calls += 1
        if self.calls & (self.calls - 1) == 0:
            self.looks = [*self.looks[-1:], self.oracles[0].forwards.clone()]

    def read(self, tried: int, attacked: int, adaptive: bool, whole: bool, seconds: float) -> Pilot:
        if not self.oracles:
            return Pilot(tried, alive=attacked, left=attacked, whole=whole, seconds=seconds)
        first = self.oracles[0]
        spent, ended = NONE, NONE
        over = first.broken | self._given_up(first.forwards)
        for place, oracle in enumerate(self.oracles):  # after the adaptive one the naive one, on what that left
            bare = place > 0 or not adaptive
            spent = spent.plus(_passes(oracle.forwards, oracle.backwards, bare))
            if oracle is first:
                ended = _passes(oracle.forwards[over], oracle.backwards[over], bare)
        alive, left = int((~over).sum()), int((~first.succeeded).sum())
        return Pilot(tried, self.calls, spent, ended, alive, left, whole, seconds)

    def _given_up(self, forwards: Tensor) -> Tensor:
        """Which images were not asked about in at least the last half of the calls, but had been more than in passing.

        Those of an attack that takes one image after the other may only wait for their turn.
        """
        if self.calls < LULL:
            return torch.zeros_like(forwards, dtype=torch.bool)
        return (forwards == self.looks[0]) & (forwards * LULL > self.calls)


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
            meter.count()
            return answer(x, draws)

        vars(oracle)["_answer"] = counted
        meter.oracles.append(oracle)
        return oracle
