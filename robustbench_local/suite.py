"""Several attacks as one: each on what the ones before left standing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_local.attack import Attack
from robustbench_local.draws import Draws
from robustbench_local.oracle import Oracle
from robustbench_local.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Suite(Attack):
    """The members run in order, each with its own access and its own draws, on samples that have not fallen.

    A member that minimises is given the ball like any other: its samples retire inside it, and what it has found
    outside is nothing. A random model retires nobody: all members run, and the oracle's best image is the answer.
    """

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        """{name: attack} in the order in which they run; the name addresses the member's draws."""
        raise NotImplementedError

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x.clone()
        for name, member in self.members(threat.norm).items():
            rows = (~oracle.done).nonzero()[:, 0]
            if not len(rows):
                break
            view = oracle[rows]
            view.access = min(oracle.access, member.access)
            found = member(view, x[rows], y[rows], threat, draws[rows].stream(name))
            known = (view.best(x_adv[rows]) == found).flatten(1).all(1)
            new = threat.contains(found, x[rows]) & ~view.done & ~known
            x_adv[rows[new]] = found[new]
            if new.any():
                view[new].submit(found[new])
        return oracle.best(x_adv)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """The sum over the members, and one forward for the image that each of them comes back with."""
        each = [member.cost(classes) for member in self.members(norm).values()]
        return sum(forwards + 1 for forwards, _ in each), sum(backwards for _, backwards in each)
