"""AutoAttack: the standard evaluation, at exactly its published strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from robustbench_local.attacks.apgd import APGD
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.square import Square
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm


@dataclass(frozen=True)
class AutoAttack(Suite):
    """Croce and Hein 2020; in L1 as in Croce and Hein 2021 (arXiv:2103.01208).

    standard: APGD on cross-entropy, APGD on the targeted dlr loss, targeted FAB, Square. plus: more restarts, and the
    untargeted APGD on dlr and FAB. rand, for random models: APGD on cross-entropy and on dlr, each query the mean of
    the judge's eot draws, which are 20 unless it is told otherwise.

    variant: which of these ensembles attacks.

    Cost: the sum over the members, which depends on the norm.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    version: ClassVar[int] = 2  # targets after the first, and four of Square's proposals, at once
    summary: ClassVar[str] = "APGD, targeted APGD and FAB, Square: the standard evaluation"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:2003.01690; L1: 2021, arXiv:2103.01208"

    variant: Literal["standard", "plus", "rand"] = "standard"

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        sparse = norm is Norm.L1
        match self.variant:
            case "standard":
                return {
                    "apgd-ce": APGD(loss="ce", restarts=5 if sparse else 1, larger_eps=sparse),
                    "apgd-t": APGD(loss="dlr", targets=5 if sparse else 9, larger_eps=sparse),
                    "fab-t": FAB(targets=9),
                    "square": Square(steps=5000, p=0.8, stretch=False, lookahead=4),
                }
            case "plus":
                return {
                    "apgd-ce": APGD(loss="ce", restarts=5),
                    "apgd-dlr": APGD(loss="dlr", restarts=5),
                    "fab": FAB(restarts=5),
                    "square": Square(steps=5000, p=0.8, stretch=False, lookahead=4),
                    "apgd-t": APGD(loss="dlr", targets=9),
                    "fab-t": FAB(targets=9),
                }
            case "rand":
                return {"apgd-ce": APGD(loss="ce"), "apgd-dlr": APGD(loss="dlr")}
