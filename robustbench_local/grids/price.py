"""What a cell would cost: passes by its attack's own estimate, seconds by one small batch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.device import synchronise
from robustbench_local.core.draws import Draws
from robustbench_local.data.images import Images
from robustbench_local.evaluation.judge import JUDGED
from robustbench_local.grids.cell import Cell

_TRIAL = 32  # images in the batch that is timed


@dataclass(frozen=True)
class Pace:
    """How fast a model is: seconds per image of a forward and of a backward pass. classes: K of its answers."""

    forward: float
    backward: float
    classes: int
    stochastic: bool

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
    """Passes per image, passes in all before the first image is attacked, and seconds in all.

    Of a random model every query counts as often as it draws. The judge's own questions are among the seconds.
    """

    forwards: int
    backwards: int
    prepared_forwards: int
    prepared_backwards: int
    seconds: float

    @classmethod
    def of(cls, cell: Cell, n: int, pace: Pace) -> Price:
        """Of a cell on n images, if none of them breaks early."""
        eot, draws = (cell.eot, cell.draws) if pace.stochastic else (1, 1)
        forwards, backwards = (eot * count for count in cell.attack.cost(pace.classes, cell.threat.norm))
        before = cell.attack.prepare_cost(pace.classes, cell.threat.norm)
        passes = n * (forwards + JUDGED * draws) + before[0], n * backwards + before[1]
        seconds = passes[0] * pace.forward + passes[1] * pace.backward
        return cls(forwards, backwards, *before, seconds)


def _now(device: torch.device) -> float:
    synchronise(device)
    return time.perf_counter()
