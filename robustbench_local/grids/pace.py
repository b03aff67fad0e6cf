"""How fast a model is: seconds of its passes, by a batch that it is given a few times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import call, is_stochastic, undefended
from robustbench_local.core.device import kept_random_state
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.data.images import Images
from robustbench_local.evaluation.batch_size import first_guess
from robustbench_local.evaluation.preflight import Tally
from robustbench_local.grids.pilot import Passes, clock
from robustbench_local.models.priced import priced

WARM = 1.2  # seconds that a batch may take: of a dear model it is made of fewer images
LEAST = 4  # images of it
RUNS, ENOUGH = 4, 0.6  # of a batch: the first pays for what is set up once; no third after so many seconds


@dataclass(frozen=True)
class Pace:
    """How fast a model is: seconds of the passes of one image, in batches of `size`, or of fewer where these take long.

    classes: K of its answers.
    """

    seconds: Passes
    classes: int
    stochastic: bool
    size: int

    @classmethod
    def of(cls, model: nn.Module, images: Images, count: int | None = None) -> Pace:
        """Measured, unless that would cost money: a model that has a price says its own.

        count: images in a batch, if not as many as a judge attacks at once.
        """
        paid = priced(model)
        if paid is not None and paid.classes is not None:
            return cls(Passes(paid.seconds, 0, 0, 0), paid.classes, is_stochastic(model), len(images))
        draws = Draws(0, images.ids)
        with as_deployed(model), full_float32(), kept_random_state(images.ids.device):
            size = min(len(images), count or first_guess(model, images[:1], draws[:1], Tally()))
            answer, *alone = _measured(model, images[:1], draws[:1], runs=2)
            few = round(min(max(WARM / max(2 * alone[0] + alone[1], 1e-9), LEAST), size))
            x = images[:few].contiguous(memory_format=torch.channels_last)
            bare = undefended(model)
            own = _measured(model, x, draws[:few])[1:]
            other = [0.0, 0.0] if bare is None else _measured(bare, x, draws[:few])[1:]
        return cls(Passes(*own, *other), answer.shape[1], is_stochastic(model), size)

    def price(self, passes: Passes) -> float:
        """Seconds that these take."""
        return sum(count * each for count, each in zip(passes, self.seconds, strict=True))


def _measured(model: nn.Module, x: Tensor, draws: Draws, runs: int = RUNS) -> tuple[Tensor, float, float]:
    """What it answers, and seconds per image of a forward and of a backward pass: the fastest of some runs."""
    best, ends = [math.inf, math.inf], clock(x.device) + ENOUGH
    for run in range(runs):
        if run > 1 and clock(x.device) > ends:
            break
        leaf, started = x.clone().requires_grad_(), clock(x.device)
        with torch.no_grad():
            answer = call(model, x, draws)
        asked = clock(x.device)
        with torch.enable_grad():
            graded = call(model, leaf, draws)
            if graded.requires_grad:
                torch.autograd.grad(graded.sum(), leaf)
        best = [min(best[0], asked - started), min(best[1], clock(x.device) - asked)]
    forward, both = (seconds / len(x) for seconds in best)
    return answer, forward, max(0.0, both - forward)
