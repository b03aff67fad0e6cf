"""A stronger attack on images that others left robust: the nearest to a success first, within a budget of passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_local.audit.stronger import EFFORT, FEW, LOOK, NEAREST, SHARE, SHORTEST, STRONGER
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import Attack
from robustbench_local.core.decision import joined, success_margin
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
    """Passes that a stronger attack will spend on one model, about, where no check suspects the others.

    eot, draws: per query and per verdict, of a random model; 1 of any other.
    """
    rows, strongest = [*rows], find_attack(STRONGER, {"effort": EFFORT})
    known = [row.passes for row in rows if not math.isnan(row.passes)]
    stronger = {row.threat for row in rows if row.attack == STRONGER}
    able = [row for row in rows if row.threat not in stronger and row.aimless and row.threat.norm in strongest.norms]
    left = {threat: min(row.robust for row in able if row.threat == threat) for threat in {row.threat for row in able}}
    left = {threat: robust for threat, robust in left.items() if robust >= 1}
    total = 0.0
    for threat, robust in left.items():
        least = max(FEW, min(robust, LOOK[draws > 1]))
        dearest = least * (sum(strongest.cost(classes, threat.norm)) * eot + JUDGED * draws)
        total += min(dearest, max(SHARE * sum(known) / len(left), 2 * FEW * SHORTEST[threat.norm] * eot))
    return total


@dataclass
class Retrying:
    """An attack on a model, judged as `row` was. What it spent, and the ids of the images that it broke.

    images contain all that it is to try. budget: passes, forward and backward; of fewer than FEW images at once as many
    as of FEW, for they take as long. known: what the model answered before. tried: how many images it tried; shortest:
    the least queries that any of these was allowed, where not all were allowed all.
    """

    attack: Attack
    row: Row
    model: nn.Module
    images: Source
    budget: float
    known: AnswerCache
    spent: float = 0.0
    tried: int = 0
    shortest: int | None = None
    broken: tuple[int, ...] = field(default=())

    def affords(self, count: int) -> bool:
        """Whether it could tell which of so many images more are nearest, and try some for what the last ones cost."""
        each = min(self._price(self.attack), self.spent / max(1, self.tried))
        return self._left >= count * self._price(find_attack(*NEAREST)) + FEW * each

    def __call__(self, ids: Ids, least: int = 0) -> None:
        """Try the images of these ids (M,): `least` of them in full in any case.

        All at once where the budget is enough, were none to fall early. Otherwise those first that a short attack
        brings nearest, in full as long as it is enough for some; what is left is shared by a few others, or all if most
        fell, each of which may then be asked about less often.
        """
        if (count := max(least, self._enough)) < len(ids):
            ids = self._nearest(ids)
        while count and len(ids):
            self._try(ids[:count])
            ids, count = ids[count:], self._enough
        others = ids if 2 * len(self.broken) > self.tried else ids[:FEW]  # where most fell, any may
        queries = int(self._left / 2 / max(FEW, len(others)))  # and as many backward passes, at most
        floor = SHORTEST[self._threat.norm] * _draws(self.row, "eot")
        if len(others) and (queries >= floor or not self.tried):
            self.shortest = max(queries, floor)
            self._try(others, self.shortest)

    def limits(self, asked: int) -> str | None:
        """What it was not allowed for want of budget on so many images that were looked at, in words."""
        parts = [f"tried on the {self.tried} nearest"] if self.tried < asked else []
        parts += [f"on some with {self.shortest} queries at most"] if self.shortest else []
        return " and ".join(parts) or None

    def _try(self, ids: Ids, queries: int | None = None) -> None:
        verdict = self._judged(self.attack, ids, queries)
        self.broken += tuple(int(i) for i in verdict.ids[verdict.clean & ~verdict.robust].tolist())
        self.tried += len(ids)

    def _nearest(self, ids: Ids) -> Ids:
        """By how much of its margin a short attack leaves each, the least first; as they are where it cannot run."""
        with suppress(Exception):  # a stranger's model may die of anything
            seen = self._judged(find_attack(*NEAREST), ids)
            scores = joined(seen.scores, seen.labels) if seen.detects else seen.scores
            nearest = success_margin(scores, seen.labels).argsort(descending=True, stable=True)
            return np.asarray(seen.ids[nearest].cpu())
        return ids

    def _judged(self, attack: Attack, ids: Ids, queries: int | None = None) -> Verdict:
        about = self.row.definition
        where = torch.isin(self.images.ids.cpu(), torch.as_tensor(ids)).nonzero()[:, 0].to(self.images.ids.device)
        some = Tensors(self.images[where], self.images.labels[where], self.images.ids[where])
        settings: dict[str, Any] = {key: self.row.said(key) for key in ("eot", "draws") if key in about}
        judge = Judge(seed=int(about["seed"]), budget=queries, **settings)
        verdict = judge(self.model, some, attack, self._threat, known=self.known)
        judged = JUDGED * _draws(self.row, "draws") * len(ids)  # as `passes` counts it
        spent = int(verdict.forwards.sum() + verdict.backwards.sum()) + judged
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
        count = int(self._left / self._price(self.attack))
        return count if count >= FEW else 0

    def _price(self, attack: Attack) -> float:
        """Passes of an image that falls to nothing, neither to the attack on the model nor on its undefended part."""
        cost = sum(attack.cost(len(self.row.results["per_class"]), self._threat.norm))
        bare, draws = undefended(self.model), _draws(self.row, "eot")
        static = 0 if bare is None else draws if is_stochastic(bare) else 1
        return cost * (draws + static) + JUDGED * _draws(self.row, "draws")


def _draws(row: Row, key: str) -> int:
    """How many draws a random model was given for a query (key "eot") or a verdict ("draws"); 1 for any other model."""
    return int(row.said(key) or 1) if row.stochastic else 1
