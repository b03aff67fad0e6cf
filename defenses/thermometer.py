"""Thermometer encoding: each value as the row of levels that it reaches, which a network of its own learns to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Deployed, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.defenses._adversarial import ascend
from robustbench_local.defenses._wrapper import Step, Wrapper, check
from robustbench_local.models.architectures import Normalise


@dataclass(frozen=True)
class Thermometer(Wrapper, Recipe):
    """Value v becomes `levels` channels, of which channel k is 1 where v > k / levels. Trained on what it sees.

    Gradients see the ramps clamp(levels v - k, 0, 1), as in the attack that broke it (Athalye et al. 2018). threat:
    with one, training is on PGD examples in that ball, crafted through the ramps; None: on clean images.

    levels: per channel, from 2 to 256. steps: of PGD in training, from 1 to 1000.
    """

    trains: ClassVar[bool] = True
    encodes: ClassVar[bool] = True
    summary: ClassVar[str] = "thermometer encoding of pixels, with a network trained on it"
    paper: ClassVar[str] = "Buckman et al. 2018, openreview S18Su--CW; Athalye et al. 2018, arXiv:1802.00420"
    family: ClassVar[str] = "preprocessing"

    levels: int = 16
    threat: str | None = None
    steps: int = 7

    def __post_init__(self) -> None:
        check("levels", self.levels, 2, 256, "levels per channel")
        check("steps", self.steps, 1, 1000, "steps of PGD in training")
        if self.threat is not None:
            ThreatModel.parse(self.threat)

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        return (self._ladder(x) > 0).to(x).flatten(1, 2)

    def soft(self, x: Tensor, draws: Draws | None) -> Tensor:
        return self._ladder(x).clamp(0, 1).flatten(1, 2)

    def _ladder(self, x: Tensor) -> Tensor:
        """(N, C, levels, H, W)"""
        rungs = torch.arange(self.levels, device=x.device, dtype=x.dtype).view(-1, 1, 1)
        return x[:, :, None] * self.levels - rungs

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(Deployed(widened(base, self.levels), [Step(self)]), self, draws)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x if self.threat is None else self._craft(net, x, y, draws, self.steps)), y)

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        if self.threat is None:
            return None
        x_adv = self._craft(net, x, y, draws, steps=10)
        with torch.no_grad():
            return float((call(net, x_adv, draws).argmax(1) == y).float().mean())

    def _craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws, steps: int) -> Tensor:
        threat = ThreatModel.parse(self.threat or "none")
        return ascend(net, x, y, threat, draws, steps, 2.5 * threat.eps / steps)


def widened(net: nn.Module, levels: int) -> nn.Module:
    """net, in place, for `levels` times the channels: at first it answers what it would to their mean per channel.

    Its first convolution and its Normalise, if it has one, are repeated.
    """
    conv = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if conv is None or conv.groups != 1:
        raise ConfigError("thermometer needs a network whose first layer is an ordinary convolution, to widen it")
    conv.in_channels *= levels
    conv.weight = nn.Parameter(conv.weight.detach().repeat_interleave(levels, 1) / levels)
    for module in net.modules():
        if isinstance(module, Normalise):
            module.mean, module.std = (value.repeat_interleave(levels, 0) for value in (module.mean, module.std))
    return net
