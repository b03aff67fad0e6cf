"""Sparse L1 Descent: PGD in L1 whose steps move more than one coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.threat import Norm


@dataclass(frozen=True)
class SparseL1(PGD):
    """Tramèr and Boneh 2019: each step goes along the signs of the largest gradients, where the box lets pixels move.

    sparsity is the share of coordinates a step moves: their 99th percentile is 0.01. On MNIST they take eps 10, 100
    steps and 40 restarts. Per image that stays robust: restarts * (steps + 1) - 1 forwards, restarts * steps backwards.

    steps: how many each restart takes, at least 1.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})
    summary: ClassVar[str] = "L1 gradient ascent along the largest one per cent of the gradient"
    paper: ClassVar[str] = "Tramèr and Boneh 2019, arXiv:1904.13000"

    steps: int = 100
