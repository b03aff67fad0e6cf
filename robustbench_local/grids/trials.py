"""What a cell's images cost, by trials of its search: on one, on many for a moment, on what these leave for longer."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import nn

from robustbench_local.grids.cell import Task
from robustbench_local.grids.pace import Pace
from robustbench_local.grids.pilot import LULL, Passes, Pilot, pilot

MOMENT, LONG = 0.3, 1.2  # seconds of the trial of many images, at least and at most
WIDE = 1 / 20  # of the price if none falls: so long it takes, between these
LEAST, MOST = 4, 256  # images of it
DEEP, DEEPEST = 1 / 4, 4.0  # of the seconds that it tells, and at most: so long some images that it left are tried
FEW = 6  # of them
NODES = 64  # of an integral


@dataclass(frozen=True)
class Trials:
    """one: of one image, which tells what a question costs; wide: of many, which tells how many fall early; deep: of
    some that are left then. None where there was none.
    """

    one: Pilot | None
    wide: Pilot | None
    deep: Pilot | None

    @classmethod
    def none(cls) -> Trials:
        return cls(None, None, None)

    @classmethod
    def of(cls, task: Task, model: nn.Module, pace: Pace, most: Passes, *, trained: bool) -> Trials:
        """most: passes of an image that does not fall. Of a model to be trained yet the third would tell nothing."""
        n, each, asked = len(task.images), pace.price(most), max(1.0, most.asked)
        count, moment = LEAST, MOMENT
        if not math.isnan(each):
            moment = min(max(MOMENT, WIDE * n * each), LONG)
            count = round(min(max(LEAST, moment * asked / max(min(LULL, asked) * each, 1e-9)), MOST))
        one = pilot(task, model, 1, MOMENT, trained=trained)
        wide = pilot(task, model, min(count, n), moment, trained=trained)
        told = cls(one, wide, None)
        if wide is None or wide.whole or not trained or not wide.alive or math.isnan(each):
            return told
        spent = told.spent(most)
        longer = min(DEEP * (n * pace.price(spent) + told.beside(pace, most, spent, n)), DEEPEST)
        if longer < moment:
            return told
        few = min(FEW, len(wide.alive))
        rows = [wide.alive[k * len(wide.alive) // few] for k in range(few)]
        return cls(one, wide, pilot(task, model, rows, longer))

    @property
    def seen(self) -> list[Pilot]:
        return [trial for trial in (self.one, self.wide, self.deep) if trial is not None]

    @property
    def robust(self) -> float:
        """The share of images of which no success is known; to the few of the last trial one comes that holds out."""
        last = self.seen[-1]
        if self.deep is None or self.wide is None:
            return last.left / last.tried
        held = (self.deep.left + 1) / (self.deep.tried + 1)
        return (self.wide.lost + len(self.wide.alive) * held) / self.wide.tried

    def spent(self, most: Passes) -> Passes:
        """Passes per image."""
        last = self.seen[-1]
        each = _whole(last, most).times(1 / last.tried)
        if self.deep is None or self.wide is None:
            return each
        return self.wide.ended.plus(each, len(self.wide.alive)).times(1 / self.wide.tried)

    def calls(self, most: Passes, n: int) -> float:
        """Questions to the model about a batch of n images: as many as there are about the one that lasts longest."""
        last = self.seen[-1]
        if last.whole or math.isnan(most.forwards) or not last.alive:
            return last.calls
        left = n * len(last.alive) / last.tried  # of a batch, when the trial was ended
        if self.deep is not None and self.wide is not None:
            left *= len(self.wide.alive) / self.wide.tried
        so_far = last.spent.plus(last.ended, -1).asked / len(last.alive)
        return last.calls * _lasting(last.kept, most.asked / max(1.0, so_far), max(1.0, left))

    def beside(self, pace: Pace, most: Passes, spent: Passes, n: int) -> float:
        """Seconds that the search takes of n images beside the passes that it spends of each."""
        if not self.seen:
            return 0.0
        from scipy.optimize import nnls  # here: every worker would wait a third of a second for it

        units = [(trial.calls, max(trial.spent.asked, trial.tried)) for trial in self.seen]
        left = [max(0.0, trial.seconds - pace.price(trial.spent)) for trial in self.seen]
        (call, image), _ = nnls(units, left)
        calls = math.ceil(n / pace.size) * self.calls(most, min(n, pace.size))
        return float(calls * call + n * max(1.0, spent.asked) * image)


def _whole(trial: Pilot, most: Passes) -> Passes:
    """Passes of all its images to their end."""
    if trial.whole or not trial.alive:
        return trial.spent
    longest = sum(most) / max(1.0, sum(trial.spent.plus(trial.ended, -1)) / len(trial.alive))
    return trial.ended.plus(most, len(trial.alive) * _lasting(trial.kept, longest) / max(1.0, longest))


def _lasting(kept: float, longest: float, images: float = 1.0) -> float:
    """How long the one of so many images lasts that lasts longest, `longest` at most, where all have lasted for 1.

    Each doubling of the time leaves the share `kept` of them: P(one lasts t) = t^log2(kept), a power law.
    """
    nodes = [math.pow(max(1.0, longest), k / NODES) for k in range(NODES + 1)]
    lasts = [1 - math.pow(1 - math.pow(t, math.log2(kept)), images) for t in nodes]
    pieces = zip(itertools.pairwise(nodes), itertools.pairwise(lasts), strict=True)
    return 1.0 + sum((b - a) * (p + q) / 2 for (a, b), (p, q) in pieces)
