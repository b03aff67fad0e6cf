"""The basic iterative method: PGD from the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_local.attacks.pgd import PGD


@dataclass(frozen=True)
class BIM(PGD):
    """Kurakin et al. 2017, section 2.2: no random start, steps of eps / steps unless step_size says otherwise."""

    summary: ClassVar[str] = "iterated FGSM, from the clean image"
    paper: ClassVar[str] = "Kurakin et al. 2017, arXiv:1607.02533"

    reach: ClassVar[float] = 1.0

    steps: int = 10
    random_start: bool = False
