"""What a cell would cost: passes by its attack's own estimate, seconds by a warmed batch and a few of its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robustbench_local.audit.retrying import passes
from robustbench_local.core.access import Access, beyond
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import is_stochastic, undefended
from robustbench_local.evaluation.budget import JUDGED
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.preflight import REPEATS, SAMPLE
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.grids.certificates import certificate
from robustbench_local.grids.certifying import Certifying
from robustbench_local.grids.pace import Pace
from robustbench_local.grids.pilot import Passes, clock
from robustbench_local.grids.trials import Trials
from robustbench_local.models.priced import priced
from robustbench_local.storage.row import Row

MOMENT = 0.3  # seconds that a certificate is tried out, about
MOST = 32  # images on which it is, at most


def known_cost(attack: Attack) -> bool:
    """Whether it says what it costs. One that asks the model, and says nothing, inherits a cost of no passes."""
    kind = type(attack)
    says = kind.cost is not Attack.cost or kind.prepare_cost is not Attack.prepare_cost
    return says or attack.access is Access.NONE


@dataclass(frozen=True)
class Price:
    """Passes per image that stays robust, passes in all before the first image is attacked, images asked about at most.

    None where the attack does not say its cost. Of a random model every query counts as often as it draws. The judge's
    own questions are among the queries.
    """

    forwards: int | None
    backwards: int | None
    prepared_forwards: int
    prepared_backwards: int
    queries: int | None

    @classmethod
    def of(cls, cell: Cell, n: int, pace: Pace, budget: int | None = None) -> Price:
        """Of a cell on n images. budget: forward passes per image, at most."""
        eot, draws = (cell.eot, cell.draws) if pace.stochastic else (1, 1)
        before = cell.attack.prepare_cost(pace.classes, cell.threat.norm)
        if not known_cost(cell.attack):
            most = None if budget is None else n * (budget + JUDGED * draws) + before[0] + REPEATS * min(SAMPLE, n)
            return cls(budget, None, *before, most)
        forwards, backwards = (eot * count for count in cell.attack.cost(pace.classes, cell.threat.norm))
        if budget is not None:
            forwards = min(forwards, budget)
        queries = before[0] + n * (forwards + JUDGED * draws) + REPEATS * min(SAMPLE, n)
        return cls(forwards, backwards, *before, queries)


@dataclass(frozen=True)
class Estimate:
    """What is to be expected of a cell: its passes, of all images together, and the seconds; NaN where nobody knows.

    robust: the share of the images that its attack leaves, at most.
    """

    passes: float
    seconds: float
    robust: float = 1.0

    @classmethod
    def of_row(cls, row: Row) -> Estimate:
        """Of a cell that is done."""
        return cls(passes(row), 0.0, row.results["robust_accuracy"])

    @classmethod
    def of(cls, task: Task, model: nn.Module, pace: Pace, *, trained: bool, before: Row | None = None) -> Estimate:
        """By what the search spends on a few images within a moment, of a model that need not be trained yet.

        before: a row of this attack on such a model, whose images fell as this one's will. A model that is paid for is
        asked nothing: none of its images falls early.
        """
        cell, n = task.cell, len(task.images)
        most = _of_one(task, model, pace)
        trials = Trials.none() if priced(model) else Trials.of(task, model, pace, most, trained=trained)
        robust, spent = 1.0, most
        if before is not None:
            robust, spent = before.results["robust_accuracy"], _of_row(before, most)
        elif trials.seen and trained:
            robust, spent = trials.robust, trials.spent(most)
        judged = JUDGED * n * (cell.draws if pace.stochastic else 1)
        before_all = cell.attack.prepare_cost(pace.classes, cell.threat.norm)
        whole = spent.times(n).plus(Passes(before_all[0] + judged, before_all[1], 0, 0))
        return cls(sum(whole), pace.price(whole) + trials.beside(pace, most, spent, n), robust)


def seconds_of(task: Task, model: nn.Module) -> float:
    """What certifying the task's images takes, by a few of them. BoundsError where no bound is known."""
    attack, images = task.cell.attack, task.judge.sees(task.images)
    assert isinstance(attack, Certifying)
    count, each = 1, 0.0
    for _ in range(2):  # the first image alone, which also pays for what is set up once
        rows = torch.arange(count, device=images.ids.device) * len(images) // count
        few = Tensors(images[rows], images.labels[rows], images.ids[rows])
        started = clock(rows.device)
        certificate(model, few, task.cell.threat, attack.method)
        each = (clock(rows.device) - started) / count
        count = round(min(max(MOMENT / max(each, 1e-9), 1), MOST, len(images)))
    return each * len(images)


def bill(model: nn.Module, tasks: Sequence[Task]) -> str | None:
    """What these cost at most, in words, those left out that the model does not grant; None where nothing is paid."""
    paid, able = priced(model), [task for task in tasks if beyond(task.cell.attack.access, model) is None]
    if paid is None or not able:
        return None
    pace = Pace.of(model, able[0].images)
    queries = [Price.of(task.cell, len(task.images), pace, task.config.budget).queries for task in able]
    text = paid.price_of(sum(count for count in queries if count is not None))
    if None in queries:
        text += f"; {queries.count(None)} of them have attacks that do not say how often they ask, which comes on top"
    return f"{able[0].cell.model.model.label}: {len(able)} cells ask at most {text}"


@dataclass(frozen=True)
class Load:
    """How large a model is, by its parameters: about what a forward pass of one image takes, beside other models.

    Counted, not timed: every process on every machine has the same number. Nothing is asked of the model, which may be
    a stranger's, and end whoever asks it.
    """

    parameters: int
    classes: int
    stochastic: bool

    @classmethod
    def of(cls, model: nn.Module, classes: int) -> Load:
        return cls(sum(each.numel() for each in model.parameters()) or 1, classes, is_stochastic(model))


def work(cell: Cell, load: Load, n: int) -> float:
    """What a cell on n images costs beside others, if none falls early; NaN where its attack does not say.

    A backward pass counts as two forward passes.
    """
    if not known_cost(cell.attack):
        return math.nan
    eot, draws = (cell.eot, cell.draws) if load.stochastic else (1, 1)
    forwards, backwards = cell.attack.cost(load.classes, cell.threat.norm)
    before = cell.attack.prepare_cost(load.classes, cell.threat.norm)
    return load.parameters * (n * (eot * (forwards + 2 * backwards) + JUDGED * draws) + before[0] + 2 * before[1])


def known_works(works: Sequence[float]) -> list[float]:
    """With the mean of the others in place of each that is not known; 1 each where none is."""
    known = [each for each in works if not math.isnan(each)]
    mean = sum(known) / len(known) if known else 1.0
    return [mean if math.isnan(each) else each for each in works]


def _of_one(task: Task, model: nn.Module, pace: Pace) -> Passes:
    """Of an image that falls to nothing; NaN where the attack does not say.

    An attack by gradients is on the undefended part as well, and the naive one there alone.
    """
    cell, budget = task.cell, task.config.budget
    if not known_cost(cell.attack):
        return Passes(math.nan, math.nan, 0, 0)
    forwards, backwards = cell.attack.cost(pace.classes, cell.threat.norm)
    bare = undefended(model) if cell.attack.access is Access.GRADIENTS else None
    draws = cell.eot if pace.stochastic else 1
    alone = Passes(forwards * draws, backwards * draws, 0, 0)
    if bare is None or (cell.adaptive and budget is not None):
        return alone if budget is None else alone._replace(forwards=min(alone.forwards, budget))
    draws = cell.eot if is_stochastic(bare) else 1
    static = Passes(0, 0, forwards * draws, backwards * draws)
    return alone.plus(static) if cell.adaptive else static


def _of_row(row: Row, most: Passes) -> Passes:
    """The mean of the images of a row, of which it does not say how many were of the undefended part."""
    forwards, backwards = row.results["forwards_mean"], row.results["backwards_mean"]
    left = row.results["robust_accuracy"] if most.forwards and not row.stochastic else 1.0
    bare = min(forwards, left * most.bare_forwards), min(backwards, left * most.bare_backwards)
    return Passes(forwards - bare[0], backwards - bare[1], *bare)
