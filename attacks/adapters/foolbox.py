"""foolbox:NAME, the attacks of Rauber et al. 2017 (arXiv:1707.04131)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from robustbench_local.attacks.adapters._peer import Peer, Traits
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

NORMS = {0: Norm.L0, 1: Norm.L1, 2: Norm.L2, float("inf"): Norm.LINF}
BLACK_BOX = ("Noise", "Boundary", "HopSkipJump", "Pointwise", "Blur", "Contrast", "Inversion", "Gen", "Binarization")


@dataclass(frozen=True)
class Foolbox(Peer):
    """An attack of Foolbox."""

    package: ClassVar[str] = "foolbox"
    distribution: ClassVar[str] = "foolbox"
    given: ClassVar[Mapping[str, str]] = {"distance": "the threat's norm", "constraint": "the threat's norm"}
    summary: ClassVar[str] = "the attacks of Foolbox, by the names of their classes: foolbox:LinfPGD"
    paper: ClassVar[str] = "Rauber et al. 2017, arXiv:1707.04131"

    def kind(self) -> Callable[..., Any]:
        return self.member(self.module(".attacks"), self.module(".attacks.base").AttackWithDistance)

    def traits(self, kind: Callable[..., Any]) -> Traits:
        names = self.parameters()
        minimises = issubclass(kind, self.module(".attacks.base").MinimizationAttack)  # type: ignore[arg-type]
        if "constraint" in names:
            norms = frozenset({Norm.LINF, Norm.L2})
        elif issubclass(kind, self.module(".attacks.base").FlexibleDistanceMinimizationAttack):  # type: ignore[arg-type]
            norms = frozenset(NORMS.values())
        else:
            norms = frozenset({NORMS[self.build().distance.p]})
        return Traits(norms, any(word in self.name for word in BLACK_BOX), minimises)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, oracle: Oracle, seed: int) -> Tensor:
        foolbox = self.module()
        distance = {norm: foolbox.distances.LpDistance(p) for p, norm in NORMS.items()}[threat.norm]
        attack = self.build(distance=distance, constraint=str(threat.norm))
        criteria = foolbox.criteria
        criterion = (criteria.TargetedMisclassification if oracle.targeted else criteria.Misclassification)(y)
        peer = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        try:
            x_adv: Tensor = attack(peer, x, criterion, epsilons=None if self.minimises else threat.eps)[1]
        except ValueError as error:
            if oracle.targeted and "unsupported criterion" in str(error):
                raise ConfigError(f"foolbox:{self.name} is an untargeted attack: leave out targets") from error
            raise
        return x_adv
