"""The nearest adversarial image, in any norm: in each, of what is here, what finds it best in so many passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from robustbench_local.attacks._sparser import Sparser
from robustbench_local.attacks._swaps import Swaps
from robustbench_local.attacks._transfers import Transfers
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.attacks.sigma_zero import SigmaZero
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel

MANY = 10  # classes: FAB has no more rounds of more
LEAST = 100  # passes: of fewer FAB has not two steps a round
ROUNDS = {"targets": 3, "restarts": 2}  # of FAB: a round of `steps` takes 2 steps + 1 forwards and `steps` backwards
SEARCH = {Norm.L2: 0.45, Norm.LINF: 0.72}  # of the passes are FAB's
SPARSE = {1.0: 1e-2, 0.5: 3e-4, 0.25: 1e-3}  # {step_size: sigma} of sigma-zero: each finds what the others miss
GRADED = 0.5  # of the passes are sigma-zero's
SWAPPED = 0.04  # of the passes are for swaps by gradients, the others the random search's
BEGUN = {"fmn": 0.05, "fab": 0.07}  # of the passes in L1, in the beginning: each finds what the others miss
PUSHED = 100  # steps of PDPGD, of half the passes at most: in fewer it does not come back from its large change
POLISHED = 0.15  # of the passes in L1 are FMN's in the end; what is left is the random search's
FAR = {Norm.L2: 1e6, Norm.LINF: 0.49}  # every second round of FAB starts within half of it: in L2 a corner of the box


@dataclass(frozen=True)
class Nearest(Suite):
    """L2 and L∞: six rounds of targeted FAB (Croce and Hein 2020), to three classes, from the clean image and from far
    away; then FMN (Pintor et al. 2021) from the nearest success. L1: FMN, PDPGD (Matyasko and Chau 2021) and targeted
    FAB, of 2,000 passes a fifth; then a random search by scores, where one coordinate hands its change to another;
    then FMN from the nearest success. L0: sigma-zero (Cinà et al. 2025) three times, with steps of other sizes and of
    other softness, half of the passes; then for a success with fewer pixels: one pixel for another by gradients, with a
    tabu list (Glover 1989), and a random search by scores, as Sparse-RS (Croce et al. 2022).

    FAB leaves regions where gradients are masked, and FMN's steps cost two passes each; the ball is of no account. A
    class to reach is taken in L0 alone: FAB takes none. Per image: at most `passes`, forwards and backwards together,
    the one of the clean image included.

    passes: so many at most, at least 100.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0, Norm.L1, Norm.L2, Norm.LINF})
    minimises: ClassVar[bool] = True
    summary: ClassVar[str] = "nearest image, by what finds it best in that norm for the same passes"
    paper: ClassVar[str] = "the members' own"

    passes: int = 2000

    def __post_init__(self) -> None:
        if self.passes < LEAST:
            raise ConfigError(f"passes is {self.passes}: at least {LEAST}, forwards and backwards together")

    def version_in(self, norm: Norm, budget: int | None = None) -> int:
        return self.version + 2 * (norm is Norm.L0) + (norm is Norm.L1)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        alone = self.passes - 3  # without the clean image's pass, the last image's, the answer's
        match norm:
            case Norm.L0:
                steps, swaps = int(GRADED * self.passes / (2 * len(SPARSE))), int(SWAPPED * self.passes / 2)
                graded = {
                    f"sigma_zero, steps of {size:g}": SigmaZero(steps=steps, step_size=size, sigma=sigma)
                    for size, sigma in SPARSE.items()
                }
                left = alone - len(SPARSE) * (2 * steps + 1) - (2 * swaps + 1)
                return graded | {"swaps": Swaps(steps=swaps), "sparser": Sparser(steps=left)}
            case Norm.L1:
                found: dict[str, Attack] = {
                    "fmn": FMN(steps=int(BEGUN["fmn"] * self.passes / 2)),
                    "pdpgd": PDPGD(steps=min(PUSHED, self.passes // 4)),
                    "fab": FAB(steps=max(1, int((BEGUN["fab"] * self.passes / 3 - 1) / 3)), targets=3),
                }
                polish = FMN(steps=int(POLISHED * self.passes / 2))
                left = alone - sum(sum(each.cost(MANY, norm)) + 1 for each in (*found.values(), polish))
                return found | {"transfers": Transfers(steps=left), "polish": polish}
        rounds = ROUNDS["targets"] * ROUNDS["restarts"]
        search = FAB(steps=int((SEARCH[norm] * self.passes / rounds - 1) / 3), **ROUNDS)
        return {"fab": search, "fmn": FMN(steps=(self.passes - 4 - rounds * (3 * search.steps + 1)) // 2)}

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        far = replace(threat, eps=FAR.get(threat.norm, threat.eps))
        return super().__call__(oracle, x, y, far, draws)
