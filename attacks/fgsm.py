"""The fast gradient sign method: one full step from the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel


@dataclass(frozen=True)
class FGSM(Attack):
    """x + eps * sign(grad) (Goodfellow et al. 2015); in L2 and L1 the steepest step of length eps.

    loss: what is raised, ce, margin, probability_margin or dlr.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    summary: ClassVar[str] = "one gradient step of length eps"
    paper: ClassVar[str] = "Goodfellow et al. 2015, arXiv:1412.6572"

    loss: str = "ce"

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        loss = losses.named(self.loss, targeted=oracle.targeted)
        _, grad, _ = oracle.grad(x, y, loss)
        return threat.climb(x, grad, x, threat.eps)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 1, 1
