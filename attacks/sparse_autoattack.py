"""Sparse AutoAttack: sparse PGD with either gradient, then Sparse-RS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_local.attacks.sparse_rs import SparseRS
from robustbench_local.attacks.spgd import SPGD
from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm


@dataclass(frozen=True)
class SparseAutoAttack(Suite):
    """Zhong et al. 2024: what one leaves robust goes to the next, in an L0 ball.

    steps: of sparse PGD with either gradient, at least 1. queries: of Sparse-RS, at least 1. Both as published.

    Cost: the sum over the members.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    summary: ClassVar[str] = "sparse PGD with unprojected and projected gradients, then Sparse-RS"
    paper: ClassVar[str] = "Zhong et al. 2024, arXiv:2405.05075"

    steps: int = 300
    queries: int = 10_000

    def __post_init__(self) -> None:
        check_counts(self, "steps", "queries")

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {
            "spgd-unprojected": SPGD(steps=self.steps, gradient="unprojected"),
            "spgd-projected": SPGD(steps=self.steps, gradient="projected"),
            "sparse_rs": SparseRS(steps=self.queries, loss="ce", alpha_init=0.8),
        }
