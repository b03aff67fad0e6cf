"""Stands among the attacks of a grid for what attacks nothing: which images of a model no attack can break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.bound_methods import SECONDS, Method
from robustbench_local.core.threat import Norm

NAME = "certify"
_WORTH = 500  # forward passes that certifying an image is taken to cost, where it is asked which cell is dearer


@dataclass(frozen=True)
class Certifying(Attack):
    """A certificate of every image. It reads the weights, as attacks by gradients do.

    method: how bounds are found; a model that certifies itself by sampling does so whatever is said.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    version: ClassVar[int] = 1  # of the bounds: a change of any margin raises it, for an older one may promise too much

    method: Method = "crown"

    def definition(self) -> dict[str, Any]:
        """What the name of its row says, beside model, images and threat."""
        name = {"certificate": self.method, "certificate_version": self.version}
        return name | {"seconds": SECONDS} if self.method == "branch_and_bound" else name

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        """No pass that a meter counts: about what it takes beside attacks."""
        return _WORTH, 0
