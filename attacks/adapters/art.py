"""art:NAME, the evasion attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv:1807.01069)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.attacks.adapters._peer import Peer, Traits
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

NORM = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}
ONE_NORM = {
    "BoundaryAttack": Norm.L2,
    "CarliniL0Method": Norm.L0,
    "CarliniL2Method": Norm.L2,
    "CarliniLInfMethod": Norm.LINF,
    "DeepFool": Norm.L2,
    "ElasticNet": Norm.L1,
    "NewtonFool": Norm.L2,
    "PixelAttack": Norm.L0,
    "SaliencyMapMethod": Norm.L0,
    "SignOPTAttack": Norm.L2,
    "ZooAttack": Norm.L2,
}
SOME_NORMS = {
    "HopSkipJump": {Norm.LINF, Norm.L2},
    "SquareAttack": {Norm.LINF, Norm.L2},
    "GeoDA": {Norm.LINF, Norm.L2, Norm.L1},
}
MINIMISING = ({*ONE_NORM} - {"PixelAttack"}) | {"HopSkipJump", "GeoDA"}
BLACK_BOX = {
    "BoundaryAttack",
    "GeoDA",
    "GRAPHITEBlackbox",
    "HopSkipJump",
    "PixelAttack",
    "SignOPTAttack",
    "SimBA",
    "SpatialTransformation",
    "SquareAttack",
    "ThresholdAttack",
    "ZooAttack",
}


@dataclass(frozen=True)
class ART(Peer):
    """An evasion attack of the Adversarial Robustness Toolbox. eps_step is not scaled to eps there: give it."""

    package: ClassVar[str] = "art"
    distribution: ClassVar[str] = "adversarial-robustness-toolbox"
    given: ClassVar[Mapping[str, str]] = {
        "estimator": "what is attacked",
        "classifier": "what is attacked",
        "eps": "the threat's",
        "th": "the threat's eps",
        "norm": "the threat's",
        "targeted": "the judge's: give it targets",
        "batch_size": "the judge's",
    }
    summary: ClassVar[str] = "the evasion attacks of ART, by the names of their classes: art:ProjectedGradientDescent"
    paper: ClassVar[str] = "Nicolae et al. 2018, arXiv:1807.01069"

    def kind(self) -> Callable[..., Any]:
        return self.member(self.module(".attacks.evasion"), self.module(".attacks.attack").EvasionAttack)

    def traits(self, kind: Callable[..., Any]) -> Traits:
        black_box = self.name in BLACK_BOX
        if self.name in ONE_NORM:
            norms = frozenset({ONE_NORM[self.name]})
        else:
            norms = frozenset(SOME_NORMS.get(self.name, NORM if "norm" in self.parameters() else Norm))
        return Traits(norms, black_box, self.name in MINIMISING, alone=black_box)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, oracle: Oracle, seed: int) -> Tensor:
        names = self.parameters()
        if oracle.targeted and "targeted" not in names:
            raise ConfigError(f"art:{self.name} is an untargeted attack: leave out targets")
        classifier = self.module(".estimators.classification").PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            oracle.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.is_cuda else "cpu",
        )
        attack = self.build(
            estimator=classifier,
            classifier=classifier,
            eps=threat.eps,
            th=int(threat.eps),
            norm=NORM.get(threat.norm),
            targeted=oracle.targeted,
            batch_size=len(x),
            **({} if "verbose" in self.settings else {"verbose": False}),
        )
        images = attack.generate(x=x.cpu().numpy().astype(np.float32), y=y.cpu().numpy())
        return torch.from_numpy(images).to(x.device)
