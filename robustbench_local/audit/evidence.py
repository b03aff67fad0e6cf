"""One row under audit, and questions to the rows of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustbench_local.audit.check import Result
from robustbench_local.core.oracle import Access
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.storage import identity
from robustbench_local.storage.row import Row

Arrays = Callable[[Row], Mapping[str, Any]]

HALF = 0.51  # of eps, see convergence.budget
SEARCHES = 1000  # queries of an attack without gradients, from which on it is a serious one


@dataclass(frozen=True)
class Evidence:
    """One good row with its arrays. standing (N,): which images stand, of a random model on most draws."""

    row: Row
    arrays: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = self.row["definition"]
        return about

    @cached_property
    def threat(self) -> ThreatModel:
        return ThreatModel.parse(self.about["threat"], allow_large=True)

    @property
    def access(self) -> Access:
        return Access[self.about["access"].upper()]

    @cached_property
    def standing(self) -> Tensor:
        return torch.as_tensor(self.arrays["robust"]).bool()

    @cached_property
    def clean(self) -> Tensor:
        return torch.as_tensor(self.arrays["clean"]).bool()

    @property
    def adaptive(self) -> bool:
        return identity.adaptive(self.row)

    @property
    def steps(self) -> int:
        return int(self.about["attack_settings"].get("steps") or 1)

    @property
    def length(self) -> int:
        """Steps times restarts: how long it searches, for comparison with the same attack."""
        return self.steps * int(self.about["attack_settings"].get("restarts") or 1)

    @property
    def unused(self) -> Tensor:
        """Of each right image that stands, if less than half of eps is used; none where that is not known.

        Nor of an attack that minimises, which moves no image that it cannot fell.
        """
        if self.threat.norm is Norm.NONE or "distance" not in self.arrays or "won" in self.arrays:
            return torch.zeros(0, dtype=torch.bool)
        used = torch.as_tensor(self.arrays["distance"]).double() / self.threat.eps
        return (used < HALF)[self.standing & self.clean]

    @property
    def unled(self) -> Tensor:
        """Of each image that stands, if no gradient led the attack; which they are was not stored, how many was."""
        counts = [flag.partition(":")[2] for flag in self.row["results"]["flags"] if flag.startswith("no_gradient:")]
        return torch.arange(int(self.standing.sum())) < sum(map(int, counts))

    @property
    def searches(self) -> bool:
        """Whether most images that stand were asked about a thousand times or more without a gradient in mind.

        An attack by gradients asks for two answers per gradient at most: one to take it at, one to see where it led.
        """
        if "forwards" not in self.arrays or not bool(self.standing.any()):
            return False
        spent = (torch.as_tensor(self.arrays[name]).double()[self.standing] for name in ("forwards", "backwards"))
        eot = int(self.about.get("eot", 1)) if self.row["results"]["stochastic"] else 1
        forwards, backwards = (each.median() / eot for each in spent)
        return bool(forwards - 2 * backwards >= SEARCHES)

    def same(self, other: Evidence, *but: str) -> bool:
        """Whether both are the same attack, but for these settings or keys of the definition."""
        mine, theirs = (
            {key: value for key, value in each.about["attack_settings"].items() if key not in but}
            for each in (self, other)
        )
        left_out = (*but, "attack_settings", "attack_version")
        return mine == theirs and identity.cell(self.row, left_out) == identity.cell(other.row, left_out)

    def __str__(self) -> str:
        settings = self.about["attack_settings"]
        text = ", ".join(f"{key}={settings[key]}" for key in ("steps", "restarts", "loss") if key in settings)
        return f"{'' if self.adaptive else 'naive '}{self.about['attack']}" + (f" ({text})" if text else "")


Question = Callable[[list[Evidence]], Iterator[Result]]


@dataclass(frozen=True)
class RowCheck:
    """One question to the rows of one model within one threat. attack: what is not sound speaks against the attack."""

    name: str
    source: str
    advice: str
    run: Question
    attack: bool = False


CHECKS: list[RowCheck] = []


def row_check(name: str, *, source: str, advice: str, attack: bool = False) -> Callable[[Question], RowCheck]:
    """Make a RowCheck of a function from good rows to results, and enlist it."""

    def enlist(run: Question) -> RowCheck:
        CHECKS.append(RowCheck(name, source, advice, run, attack))
        return CHECKS[-1]

    return enlist
