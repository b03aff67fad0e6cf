"""torchattacks:NAME, the attacks of Kim 2020 (arXiv:2010.01950)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from robustbench_local.attacks.adapters._peer import Peer, Traits
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

NORM = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
NOT_LINF = {
    "PGDL2": Norm.L2,
    "PGDRSL2": Norm.L2,
    "CW": Norm.L2,
    "DeepFool": Norm.L2,
    "GN": Norm.L2,
    "EADL1": Norm.L1,
    "EADEN": Norm.L1,
    "JSMA": Norm.L0,
    "SparseFool": Norm.L0,
    "OnePixel": Norm.L0,
    "Pixle": Norm.L0,
}
MINIMISING = {"CW", "DeepFool", "EADL1", "EADEN", "FAB", "JSMA", "SparseFool"}
BLACK_BOX = {"GN", "OnePixel", "Pixle", "SPSA", "Square"}


@dataclass(frozen=True)
class Torchattacks(Peer):
    """An attack of torchattacks. alpha (the length of a step) is not scaled to eps there: give it."""

    package: ClassVar[str] = "torchattacks"
    distribution: ClassVar[str] = "torchattacks"
    given: ClassVar[Mapping[str, str]] = {
        "model": "what is attacked",
        "eps": "the threat's",
        "max_epsilon": "the threat's",
        "pixels": "the threat's eps",
        "norm": "the threat's",
        "n_classes": "the model's",
        "seed": "the judge's",
    }
    summary: ClassVar[str] = "the attacks of torchattacks, by the names of their classes: torchattacks:PGD"
    paper: ClassVar[str] = "Kim 2020, arXiv:2010.01950"

    def kind(self) -> Callable[..., Any]:
        module = self.module()
        return self.member(module, self.module(".attack").Attack)

    def traits(self, kind: Callable[..., Any]) -> Traits:
        black_box = self.name in BLACK_BOX
        if "norm" in self.parameters():
            norms = frozenset({Norm.LINF, Norm.L2})
        else:
            norms = frozenset({NOT_LINF.get(self.name, Norm.LINF)})
        return Traits(norms, black_box, self.name in MINIMISING, alone=black_box)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, oracle: Oracle, seed: int) -> Tensor:
        attack = self.build(
            model=model,
            eps=threat.eps,
            max_epsilon=threat.eps,
            pixels=int(threat.eps),
            norm=NORM.get(threat.norm),
            n_classes=oracle.classes,
            seed=seed,
        )
        if oracle.targeted:
            if "targeted" not in attack.supported_mode:
                raise ConfigError(f"torchattacks:{self.name} is an untargeted attack: leave out targets")
            attack.set_mode_targeted_by_label(quiet=True)
        x_adv: Tensor = attack(x, y)
        return x_adv
