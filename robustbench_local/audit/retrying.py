"""A stronger attack on images that others left robust: the nearest to a success first, within a budget of passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_local.audit.stronger import DRAWN, EFFORT, FEW, LEAST, LOOK, NEAR, SHARE, SHORTEST, STRONGER, WORTH
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import is_stochastic, undefended
from robustbench_local.core.source import Source
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.budget import JUDGED
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.storage.row import Row

Ids = npt.NDArray[Any]


def passes(row: Row) -> float:
    """Forward and backward passes of a row: on its images, to learn beforehand, and to judge.

    Of judging what it costs where nothing is known: how much of it one process asked another cell before is chance, and
    an audit is the same whoever did the cells.
    """
    found: Mapping[str, Any] = row.results
    judged = JUDGED * _draws(row, "draws") * found["n"]
    before = found.get("prepared_forwards", 0) + found.get("prepared_backwards", 0)
    return float(found["n"] * (found["forwards_mean"] + found["backwards_mean"]) + before + judged)


@dataclass(frozen=True)
class Expected:
    """What is to be expected of a row. robust: images that its attack leaves. aimless: whether it has no target."""

    attack: str
    threat: ThreatModel
    aimless: bool
    passes: float
    robust: float


def expected_passes(rows: Iterable[Expected], classes: int, eot: int, draws: int) -> float:
    """Passes that a stronger attack will spend on one model, about, where no check suspects the others and hardly any
    of the images that were nearest to a success fall.

    eot, draws: per query and per verdict, of a random model; 1 of any other.
    """
    rows, strongest = [*rows], find_attack(STRONGER, {"effort": EFFORT})
    known = [row.passes for row in rows if not math.isnan(row.passes)]
    stronger = {row.threat for row in rows if row.attack == STRONGER}
    able = [row for row in rows if row.threat not in stronger and row.aimless and row.threat.norm in SHORTEST]
    left = {threat: min(row.robust for row in able if row.threat == threat) for threat in {row.threat for row in able}}
    left = {threat: robust for threat, robust in left.items() if robust >= 1}
    total = 0.0
    for threat, robust in left.items():
        budget, brief = SHARE * sum(known) / len(left), 2 * SHORTEST[threat.norm]
        few, drawn = few_within(budget, brief, eot, draws)
        nearest = min(robust, few) * (brief * drawn + JUDGED * draws)
        least = max(FEW, min(robust, LOOK[draws > 1]))
        look = least * (sum(strongest.cost(classes, threat.norm)) * eot + JUDGED * draws)
        rest = budget - nearest
        total += nearest + (min(rest, look) if rest >= FEW * brief * drawn else 0.0)
    return total


def few_within(budget: float, passes: float, eot: int, draws: int) -> tuple[int, int]:
    """How many images are tried at once with few queries, `passes` for every draw, and with how many draws per query.

    FEW, with eot draws. Of a random model, whose draws are asked for one after the other, as many as the budget is
    enough for, but LEAST; and with as many draws, but DRAWN. eot, draws: per query and per verdict, 1 of any other.
    """
    if eot == 1:
        return FEW, 1
    few = min(FEW, max(LEAST, int(budget / (passes * eot + JUDGED * draws))))
    return few, draws_within(budget, few, passes, eot, draws)


def draws_within(budget: float, count: int, passes: float, eot: int, draws: int) -> int:
    """Draws per query with which so many images, of `passes` each for every draw, cost no more than the budget: eot at
    most, and where that is more than DRAWN, no fewer than these.

    draws: per verdict.
    """
    return min(eot, max(DRAWN, int((budget / count - JUDGED * draws) / passes)))


@dataclass
class Retrying:
    """An attack on a model, judged as `row` was. What it spent, and the ids of the images that it broke.

    images contain all that it is to try. budget: passes, forward and backward; of fewer than FEW images at once as many
    as of FEW, for small networks take as long. Of a random model what is tried in any case is fewer images with fewer
    draws per query, see few_within. known: what the model answered before. ordered: whether its rows tell which images
    are near. passes: forward and backward, as many as there were; tried: the ids that it tried; shortest: the least
    queries that any of these was allowed, where not all were allowed all; fell: the share of those that it tried last.
    """

    attack: Attack
    row: Row
    model: nn.Module
    images: Source
    budget: float
    known: AnswerCache
    ordered: bool = True
    spent: float = 0.0
    passes: float = 0.0
    tried: tuple[int, ...] = ()
    shortest: int | None = None
    broken: tuple[int, ...] = ()
    fell: float = 0.0

    def affords_some(self) -> bool:
        """Whether it could try some more images for what the last ones cost."""
        each = min(self._price, self.spent / max(1, len(self.tried)))
        return self._left >= FEW * each

    def nearest(self, ids: Ids) -> None:
        """Try ids (M,), the nearest to a success first, a few at a time with few queries each, until hardly any
        of these fall, or half the budget is spent; the first in any case, and FEW if some of them fall.
        """
        few, _ = self._few
        dearest = 2 * few * self._floor  # passes of so many
        for start in range(0, len(ids), few):
            beyond = start >= FEW and self.spent + dearest > NEAR * self.budget
            if start and (self.fell < WORTH or beyond):
                return
            self._try(ids[start : start + few], self._floor)

    def __call__(self, ids: Ids, least: int = 0, *, whole: bool = False) -> None:
        """Try ids (M,), `least` of them in full in any case, and the nearest to a success first.

        whole: all of them whatever that costs, if most of the last ones fell.

        In full as long as the budget is enough for some, were none to fall early; what is left is shared by a few
        others, or all if most of the last ones fell, each of which may then be asked about less often.
        """
        ids = ids[~np.isin(ids, self.broken)]
        count, full = max(least, self._enough), sum(self._cost)
        drawn = _draws(self.row, "eot"), _draws(self.row, "draws")
        while count and len(ids):
            self._try(ids[:count], draws=draws_within(self._left, count, full, *drawn))
            ids, count = ids[count:], self._enough
        ids = ids[~np.isin(ids, self.tried)]
        others = ids if self._falling else ids[:FEW]  # where most fell, any may
        queries = int(self._left / 2 / max(FEW, len(others)))  # and as many backward passes, at most
        if len(others) and (queries >= self._floor or not self.tried or (whole and self._falling)):
            self._try(others, max(queries, self._floor))

    def limits(self, robust: int) -> list[str]:
        """What it was not allowed, of so many robust images, in words."""
        first = ", the nearest first" if self.ordered else ""
        few = [f"tried on {len(self.tried)}{first}"] if len(self.tried) < robust else []
        return few + ([f"on some with {self.shortest} queries at most"] if self.shortest else [])

    def _try(self, ids: Ids, queries: int | None = None, draws: int | None = None) -> None:
        """queries: of each image at most, None for all that the attack wants; draws: per query, of a random model."""
        verdict = self._judged(self.attack, ids, queries, draws or self._few[1])
        self.fell = float((~verdict.robust).double().mean())
        self.broken += tuple(int(i) for i in verdict.ids[verdict.clean & ~verdict.robust].tolist())
        self.tried += tuple(int(i) for i in ids if i not in self.tried)
        if queries is not None:
            self.shortest = min(queries, self.shortest or queries)

    @property
    def _falling(self) -> bool:
        return self.fell > 0.5

    @property
    def _floor(self) -> int:
        """Queries that an image is allowed at least, each draw counted."""
        return SHORTEST[self._threat.norm] * self._few[1]

    @property
    def _few(self) -> tuple[int, int]:
        """How many images are tried at once with few queries, and draws per query."""
        draws = _draws(self.row, "eot"), _draws(self.row, "draws")
        return few_within(self.budget, 2 * SHORTEST[self._threat.norm], *draws)

    def _judged(self, attack: Attack, ids: Ids, queries: int | None, draws: int) -> Verdict:
        about = self.row.definition
        where = torch.isin(self.images.ids.cpu(), torch.as_tensor(ids)).nonzero()[:, 0].to(self.images.ids.device)
        some = Tensors(self.images[where], self.images.labels[where], self.images.ids[where])
        settings: dict[str, Any] = {"draws": self.row.said("draws")} if "draws" in about else {}
        judge = Judge(seed=int(about["seed"]), budget=queries, eot=draws, **settings)
        verdict = judge(self.model, some, attack, self._threat, known=self.known)
        judged = JUDGED * _draws(self.row, "draws") * len(ids)  # as `passes` counts it
        spent = int(verdict.forwards.sum() + verdict.backwards.sum()) + judged
        self.passes += spent
        self.spent += spent * max(1.0, FEW / len(ids))
        return verdict

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel.parse(self.row.threat, allow_large=True)

    @property
    def _left(self) -> float:
        return max(0.0, self.budget - self.spent)

    @property
    def _enough(self) -> int:
        """For how many images the rest of the budget is enough, were none to fall early; 0 if for few."""
        count = int(self._left / self._price)
        return count if count >= FEW else 0

    @property
    def _price(self) -> float:
        """Passes of an image that falls to nothing, neither to the attack on the model nor on its undefended part."""
        cost = sum(self._cost)
        bare, draws = undefended(self.model), _draws(self.row, "eot")
        static = 0 if bare is None else draws if is_stochastic(bare) else 1
        return cost * (draws + static) + JUDGED * _draws(self.row, "draws")

    @property
    def _cost(self) -> tuple[int, int]:
        return self.attack.cost(len(self.row.results["per_class"]), self._threat.norm)


def _draws(row: Row, key: str) -> int:
    """How many draws a random model was given for a query (key "eot") or a verdict ("draws"); 1 for any other model."""
    return int(row.said(key) or 1) if row.stochastic else 1
