"""Adversarial training: minimise the loss on examples crafted against the network as it stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.defense import Defense, Recipe
from robustbench_local.draws import Draws
from robustbench_local.errors import ConfigError
from robustbench_local.threat import Norm, ThreatModel, parse_number
from robustbench_local.train import Trainer


@dataclass(frozen=True)
class AdversarialTraining(Defense, Recipe):
    """PGD training (Madry et al. 2018, equation 2.1), or FGSM from a random start (Wong et al. 2020, algorithm 3).

    threat: any ball, "linf:8/255". step_size: in pixels, by default 2.5 eps / steps for pgd and 1.25 eps for fgsm_rs.
    ramp: the share of training over which eps grows from 0, for large eps at which a fresh network learns nothing.
    pgd_from: the share of training from which fgsm_rs hands over to PGD, as single steps grow weak late in training.
    validate attacks held-out training images with PGD, so that the trainer sees catastrophic overfitting and stops.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "training on PGD or random-start FGSM examples"
    paper: ClassVar[str] = "Madry et al. 2018, arXiv:1706.06083; Wong et al. 2020, arXiv:2001.03994"

    threat: str = "linf:8/255"
    method: Literal["pgd", "fgsm_rs"] = "pgd"
    steps: int = 7
    step_size: str | float | None = None
    ramp: float = 0.0
    pgd_from: float = 1.0

    def __post_init__(self) -> None:
        ThreatModel.parse(self.threat)
        if self.method not in ("pgd", "fgsm_rs"):
            raise ConfigError(f'method "{self.method}" is unknown: pgd or fgsm_rs')
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: it must be at least 1")
        for name in ("ramp", "pgd_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it is a share of training, in [0, 1]")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)

    def at(self, progress: float) -> Recipe:
        now = replace(self, method="pgd") if progress >= self.pgd_from else self
        if progress >= self.ramp:
            return now
        threat = ThreatModel.parse(self.threat)
        eps = threat.eps * progress / self.ramp
        return replace(now, threat=f"{threat.norm}:{int(eps) if threat.norm is Norm.L0 else eps}", ramp=0.0)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        threat = ThreatModel.parse(self.threat)
        steps = 1 if self.method == "fgsm_rs" else self.steps
        factor = 1.25 if self.method == "fgsm_rs" else 2.5 / steps
        size = factor * threat.eps if self.step_size is None else parse_number(self.step_size)
        return F.cross_entropy(net(ascend(net, x, y, threat, draws, steps, size)), y)

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        threat = ThreatModel.parse(self.threat)
        x_adv = ascend(net, x, y, threat, draws, steps=10, size=0.25 * threat.eps)
        with torch.no_grad():
            return float((net(x_adv).argmax(1) == y).float().mean())


def ascend(
    net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, steps: int, size: float
) -> Tensor:
    """The inner maximisation, in whatever mode net is in: steps of `size` up the cross-entropy, from a random start."""
    x_adv = threat.start(x, draws)
    for _ in range(steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y, reduction="sum"), x_adv)
        x_adv = threat.project(x_adv.detach() + size * threat.steepest(grad, x_adv.detach(), x), x)
    return x_adv.detach()
