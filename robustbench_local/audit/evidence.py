"""What checks may ask of stored rows: one with its arrays, and those of one model together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.storage.row import Row

ReadArrays = Callable[[Row], Mapping[str, Any]]

HALF = 0.51  # of eps: pixels taken to span [-1, 1], the smallest of the mistakes of unit, use half of it
SEARCHES = 1000  # queries of an attack without gradients, from which on it is a serious one


@dataclass(frozen=True)
class Evidence:
    """One good row with its arrays. robust (N,): which images are, of a random model on most draws."""

    row: Row
    arrays: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = self.row.definition
        return about

    @cached_property
    def threat(self) -> ThreatModel:
        return ThreatModel.parse(self.about["threat"], allow_large=True)

    @property
    def access(self) -> Access:
        return Access[self.about["access"].upper()]

    @cached_property
    def robust(self) -> Tensor:
        return torch.as_tensor(self.arrays["robust"]).bool()

    @cached_property
    def clean(self) -> Tensor:
        return torch.as_tensor(self.arrays["clean"]).bool()

    @property
    def adaptive(self) -> bool:
        return self.row.adaptive

    @property
    def steps(self) -> int:
        return int(self.about["attack_settings"].get("steps") or 1)

    @property
    def length(self) -> int:
        """Steps times restarts: how long it searches, for comparison with the same attack."""
        return self.steps * int(self.about["attack_settings"].get("restarts") or 1)

    @property
    def used(self) -> Tensor:
        """How much of eps is used on each robust image that was right; none where that is not known.

        Nor of an attack that minimises, which moves no image that it cannot break.
        """
        if self.threat.norm is Norm.NONE or "distance" not in self.arrays or "success" in self.arrays:
            return torch.zeros(0, dtype=torch.float64)
        return (torch.as_tensor(self.arrays["distance"]).double() / self.threat.eps)[self.robust & self.clean]

    @property
    def idle(self) -> bool:
        """Whether most robust images came back hardly moved, as where a loss is flat."""
        return bool((self.used < HALF).double().mean() > 0.5)

    @property
    def unled(self) -> Tensor:
        """Of each robust image, if no gradient led the attack; which they are was not stored, how many was."""
        counts = [flag.partition(":")[2] for flag in self.row.results["flags"] if flag.startswith("no_gradient:")]
        return torch.arange(int(self.robust.sum())) < sum(map(int, counts))

    @property
    def searches(self) -> bool:
        """Whether most robust images were asked about a thousand times or more without a gradient in mind.

        An attack by gradients asks for two answers per gradient at most: one to take it at, one to see where it led.
        """
        if "forwards" not in self.arrays or not bool(self.robust.any()):
            return False
        spent = (torch.as_tensor(self.arrays[name]).double()[self.robust] for name in ("forwards", "backwards"))
        eot = int(self.about.get("eot", 1)) if self.row.stochastic else 1
        forwards, backwards = (each.median() / eot for each in spent)
        return bool(forwards - 2 * backwards >= SEARCHES)

    def same(self, other: Evidence, *but: str) -> bool:
        """Whether both are the same attack, but for these settings or keys of the definition."""
        mine, theirs = (
            {key: value for key, value in each.about["attack_settings"].items() if key not in but}
            for each in (self, other)
        )
        left_out = (*but, "attack_settings", "attack_version")
        return mine == theirs and self.row.of_cell(left_out) == other.row.of_cell(left_out)

    def __str__(self) -> str:
        settings = self.about["attack_settings"]
        text = ", ".join(f"{key}={settings[key]}" for key in ("steps", "restarts", "loss") if key in settings)
        return f"{'' if self.adaptive else 'naive '}{self.about['attack']}" + (f" ({text})" if text else "")


@dataclass(frozen=True)
class Rows:
    """Good rows of one model on the same images. within: one threat, also by iteration; group: any threat."""

    within: Sequence[Evidence]
    group: Sequence[Evidence]

    def __iter__(self) -> Iterator[Evidence]:
        return iter(self.within)

    @property
    def graded(self) -> list[Evidence]:
        """Attacks by the gradients of the model as it is deployed."""
        return [each for each in self if each.access is Access.GRADIENTS and each.adaptive]

    @property
    def single_and_iterated(self) -> Iterator[tuple[Evidence, Evidence]]:
        """Each attack of a single step with each of more steps. A step that mostly was not taken met a flat loss: that
        the budget is not used says so.
        """
        single = [each for each in self.graded if each.length == 1 and not each.idle]
        return product(single, (each for each in self.graded if each.length > 1))
