"""Noise fusion: noise on the training images, on the input at run time, or on both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defense, Deployed, Preprocess, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.ops.noise import Kind, check_noise, noisy


class InputNoise(Preprocess):
    """Pixels with noise, clipped to [0, 1]. Gradients pass as they are: the noise is a constant to them."""

    stochastic = True
    surrogate = None  # type: ignore[assignment]

    def __init__(self, kind: Kind, amplitude: float) -> None:
        super().__init__()
        self.kind, self.amplitude = kind, amplitude

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return noisy(x, self.kind, self.amplitude, draws_for(x, draws)).clamp(0, 1)


@dataclass(frozen=True)
class NoiseFusion(Defense, Recipe):
    """NFM of Shi et al. 2022 (Electronics 11(12), 1814): noise of one kind and amplitude on the training images, on
    the input at run time, or both, each switchable. Their amplitudes are not known to us; these settings are ours.

    amplitude: the standard deviation of gaussian and speckle, the half-width of uniform, the scale of laplace, the
    share of values that salt_pepper replaces. Without noise in training the network is the undefended one.

    kind: what noise it is. run_time: whether the deployed model adds noise. training: whether training images have
    noise; one of both is true.
    """

    summary: ClassVar[str] = "noise on training images, on the input at run time, or both"
    paper: ClassVar[str] = "Shi, Liao and He 2022, Electronics 11(12), 1814"
    family: ClassVar[str] = "noise"

    kind: Kind = "gaussian"
    amplitude: float = 0.1
    run_time: bool = True
    training: bool = True

    def __post_init__(self) -> None:
        check_noise(self.kind, self.amplitude)
        if not (self.run_time or self.training):
            raise ConfigError("run_time and training are both false: that is no defense, which is called none")

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return self.training

    def as_trained(self) -> NoiseFusion:
        return replace(self, run_time=True)

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        net = trainer.fit(base, self.as_trained(), draws) if self.training else base
        return Deployed(net, [InputNoise(self.kind, self.amplitude)] if self.run_time else []).eval()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(InputNoise(self.kind, self.amplitude)(x, draws)), y)
