"""pyautoattack, the maintained copy of AutoAttack (Croce and Hein 2020, arXiv:2003.01690)."""

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


@dataclass(frozen=True)
class PyAutoAttack(Peer):
    """AutoAttack as its authors published it. settings: version (standard, plus, rand, custom), attacks (of custom)."""

    package: ClassVar[str] = "pyautoattack"
    distribution: ClassVar[str] = "pyautoattack"
    given: ClassVar[Mapping[str, str]] = {
        "model": "what is attacked",
        "eps": "the threat's",
        "norm": "the threat's",
        "seed": "the judge's",
        "device": "the model's",
    }
    norms: ClassVar[frozenset[Norm]] = frozenset(NORM)
    summary: ClassVar[str] = "AutoAttack in its maintained copy"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:2003.01690"

    def kind(self) -> Callable[..., Any]:
        if self.name:
            raise ConfigError(f'pyautoattack is one attack and has no "{self.name}": its setting attacks names parts')
        kind: Callable[..., Any] = self.module().AutoAttack
        return kind

    def traits(self, kind: Callable[..., Any]) -> Traits:
        return Traits(frozenset(NORM))

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, oracle: Oracle, seed: int) -> Tensor:
        if oracle.targeted:
            raise ConfigError("pyautoattack is an untargeted attack: leave out targets")
        attack = self.build(model=model, eps=threat.eps, norm=NORM[threat.norm], seed=seed, device=x.device)
        x_adv: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return x_adv
