"""Several attacks as one: each on what the ones before did not break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.core.attack import Attack, prepared
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Suite(Attack):
    """The members run in order, each with its own access and its own draws, on samples that are not broken.

    A member that minimises is given the ball like any other: its samples retire inside it, and what it has found
    outside is nothing. A random model retires nobody: all members run, and the oracle's best image is the answer.
    Members that learn share the attacker's images: each sees the first of them, as many as it asks for.
    """

    ready: ClassVar[Mapping[str, Attack] | None] = None  # the members as they were prepared, for one threat

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        """{name: attack} in the order in which they run; the name addresses the member's draws."""
        raise NotImplementedError

    @property
    def own_images(self) -> int:
        return max((member.own_images for norm in self.norms for member in self.members(norm).values()), default=0)

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        ready = {}
        for name, member in self.members(threat.norm).items():
            mine = torch.arange(member.own_images, device=x.device)
            view = oracle[mine].narrowed(member.access)
            ready[name] = prepared(member, view, x[mine], y[mine], threat, draws[mine].stream(name))
        return self.knowing(ready=ready)

    def sources(self) -> dict[str, str]:
        """What the members read, over all norms."""
        members = {name: member for norm in self.norms for name, member in self.members(norm).items()}
        return {f"{name}: {key}": value for name, member in members.items() for key, value in member.sources().items()}

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x.clone()
        for name, member in (self.ready or self.members(threat.norm)).items():
            rows = (~oracle.done).nonzero()[:, 0]
            if not len(rows):
                break
            view = oracle[rows].narrowed(member.access)
            found = member(view, x[rows], y[rows], threat, draws[rows].stream(name))
            known = (view.best(x_adv[rows]) == found).flatten(1).all(1)
            new = threat.contains(found, x[rows]) & ~view.done & ~known
            x_adv[rows[new]] = found[new]
            if new.any():
                view[new].submit(found[new])
        return oracle.best(x_adv)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """The sum over the members, and one forward for the image that each of them comes back with."""
        each = [member.cost(classes, norm) for member in self.members(norm).values()]
        return sum(forwards + 1 for forwards, _ in each), sum(backwards for _, backwards in each)

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """The sum over the members."""
        each = [member.prepare_cost(classes, norm) for member in self.members(norm).values()]
        return sum(forwards for forwards, _ in each), sum(backwards for _, backwards in each)
