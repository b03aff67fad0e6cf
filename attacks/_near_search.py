"""Sparse-RS whose new pixels are half the time next to those that they replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_local.attacks.sparse_rs import SparseRS


@dataclass(frozen=True)
class NearSearch(SparseRS):
    """Of what a convolution sees, a pixel's neighbours say more than pixels elsewhere; the other half finds those.

    Two searches, since one that is so local stays more often where it can get no further.
    """

    near: ClassVar[bool] = True

    restarts: int = 2
    loss: str = "ce"
    alpha_init: float = 0.8
