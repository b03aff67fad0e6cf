"""adversarial-library's attacks that seek the nearest image, on this package's meter: a peer where it is installed."""

from __future__ import annotations

import importlib
import inspect
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.device import kept_random_state
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

ORDERS = {Norm.L0: 0, Norm.L1: 1, Norm.L2: 2, Norm.LINF: math.inf}


@dataclass(frozen=True)
class AdvLib(Attack):
    """The function `name` of adv_lib.attacks with these settings; the norm is the threat's where it asks for one.

    Of all it asked about the nearest success counts, as of our own attacks. It is given contiguous images: of channels
    last its projections work on copies, and in L1 and L0 fmn keeps none of them.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset(ORDERS)
    minimises: ClassVar[bool] = True

    name: str = "fmn"
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        attack = getattr(importlib.import_module("adv_lib.attacks"), self.name)
        offered = {"norm": ORDERS[threat.norm], "p": ORDERS[threat.norm], "distance": str(threat.norm)}
        given = {name: value for name, value in offered.items() if name in inspect.signature(attack).parameters}
        with kept_random_state(x.device):
            torch.manual_seed(0)
            images = x.clone(memory_format=torch.contiguous_format)
            x_adv = attack(oracle.as_module(), images, y.clone(), **given | self.settings)
        return oracle.best(x_adv.detach().clamp(0, 1))
