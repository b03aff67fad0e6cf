"""What a cell would cost: passes by its attack's own estimate, seconds by one small batch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robustbench_local.core.access import beyond
from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.device import synchronise
from robustbench_local.core.draws import Draws
from robustbench_local.data.images import Images
from robustbench_local.evaluation.budget import JUDGED
from robustbench_local.evaluation.preflight import REPEATS, SAMPLE
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.models.priced import priced

_TRIAL = 32  # images in the batch that is timed


@dataclass(frozen=True)
class Pace:
    """How fast a model is: seconds per image of a forward and of a backward pass. classes: K of its answers."""

    forward: float
    backward: float
    classes: int
    stochastic: bool

    @classmethod
    def of(cls, model: nn.Module, images: Images) -> Pace:
        """Measured, unless that would cost money: a model that has a price says its own."""
        paid = priced(model)
        if paid is None or paid.classes is None:
            return cls.measured(model, images)
        return cls(paid.seconds, 0.0, paid.classes, is_stochastic(model))

    @classmethod
    def measured(cls, model: nn.Module, images: Images) -> Pace:
        """By one small batch, the faster of two runs: the first pays for what is set up once."""
        x = images[:_TRIAL]
        draws = Draws(0, images.ids[:_TRIAL])
        best = [math.inf, math.inf]
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            started = _now(x.device)
            logits = call(model, leaf, draws)
            middle = _now(x.device)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), leaf)
            best = [min(best[0], middle - started), min(best[1], _now(x.device) - middle)]
        return cls(best[0] / len(x), best[1] / len(x), logits.shape[1], is_stochastic(model))


@dataclass(frozen=True)
class Price:
    """Passes per image, passes in all before the first image is attacked, images asked about and seconds in all.

    Of a random model every query counts as often as it draws. The judge's own questions are among the queries and the
    seconds.
    """

    forwards: int
    backwards: int
    prepared_forwards: int
    prepared_backwards: int
    queries: int
    seconds: float

    @classmethod
    def of(cls, cell: Cell, n: int, pace: Pace, budget: int | None = None) -> Price:
        """Of a cell on n images, if none of them breaks early. budget: forward passes per image, at most."""
        eot, draws = (cell.eot, cell.draws) if pace.stochastic else (1, 1)
        forwards, backwards = (eot * count for count in cell.attack.cost(pace.classes, cell.threat.norm))
        if budget is not None:
            forwards = min(forwards, budget)
        before = cell.attack.prepare_cost(pace.classes, cell.threat.norm)
        passes = n * (forwards + JUDGED * draws) + before[0], n * backwards + before[1]
        seconds = passes[0] * pace.forward + passes[1] * pace.backward
        queries = passes[0] + REPEATS * min(SAMPLE, n)
        return cls(forwards, backwards, *before, queries, seconds)


def bill(model: nn.Module, tasks: Sequence[Task]) -> str | None:
    """What these cost at most, in words, those left out that the model does not grant; None where nothing is paid."""
    paid, able = priced(model), [task for task in tasks if beyond(task.cell.attack.access, model) is None]
    if paid is None or not able:
        return None
    pace = Pace.of(model, able[0].images)
    prices = [Price.of(task.cell, len(task.images), pace, task.config.budget) for task in able]
    text = paid.price_of(sum(price.queries for price in prices))
    return f"{able[0].cell.model.model.label}: {len(able)} cells ask at most {text}"


def _now(device: torch.device) -> float:
    synchronise(device)
    return time.perf_counter()
