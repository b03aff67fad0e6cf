"""Noise layers: noise on what each convolution receives, in training and at run time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.config.settings import check_counts
from robustbench_local.core.defense import Defended, Defense, call, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.defenses._adversarial import ascend
from robustbench_local.defenses._passes import log_probabilities, mean_probability
from robustbench_local.defenses._wrapper import check
from robustbench_local.ops.noise import LOUDEST


class Noisy(nn.Module):
    """A layer behind Gaussian noise. The network that holds it hands it the draws of every pass.

    Fixed: of standard deviation `amplitude`. Learnt: amplitude is a weight, and counts standard deviations of the
    layer's own input, image by image.
    """

    def __init__(self, layer: nn.Module, amplitude: float, learnt: bool) -> None:
        super().__init__()
        self.layer, self.learnt = layer, learnt
        self.amplitude = nn.Parameter(torch.tensor(amplitude)) if learnt else amplitude
        self.draws: Draws | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.draws is None:  # asked as if there were no defense
            return cast(Tensor, self.layer(x))
        noise = torch.empty_like(x).copy_(self.draws.normal(*x.shape[1:]))  # of x's memory format: a faster sum
        scale = self.amplitude * deviation(x) if self.learnt else self.amplitude
        out: Tensor = self.layer(x + noise * scale)
        return out


def deviation(x: Tensor) -> Tensor:
    """The standard deviation (N, 1, 1, 1) of the values of each x (N, C, H, W), in a third of torch.std's time."""
    centred = x - x.mean((1, 2, 3), keepdim=True)
    length: Tensor = torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True)
    return length / math.sqrt(x[0].numel() - 1)


class NoisyNet(Defended):
    """A network with noise before every convolution; the log of the mean probability of `passes` passes."""

    stochastic = True

    def __init__(self, net: nn.Module, first: float, inner: float, learnt: bool, passes: int) -> None:
        super().__init__()
        places = [
            (parent, name)
            for parent in net.modules()
            for name, child in parent.named_children()
            if isinstance(child, nn.Conv2d)
        ]
        for place, (parent, name) in enumerate(places):
            setattr(parent, name, Noisy(getattr(parent, name), inner if place else first, learnt))
        self.net, self.passes = net, passes

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        passes = [partial(self._once, draws=draws.stream(k)) for k in range(1 if self.training else self.passes)]
        return mean_probability(log_probabilities(x, passes))

    def undefended(self) -> nn.Module:
        return self.net  # silent, where nobody hands it draws

    def _once(self, x: Tensor, draws: Draws) -> Tensor:
        layers = [module for module in self.net.modules() if isinstance(module, Noisy)]
        for place, layer in enumerate(layers):
            layer.draws = draws.stream(place)
        logits: Tensor = self.net(x)
        for layer in layers:
            layer.draws = None
        return logits


@dataclass(frozen=True)
class NoiseLayers(Defense, Recipe):
    """Random self-ensemble (RSE, Liu et al. 2018): Gaussian noise of fixed size before the first and the inner
    convolutions; theirs 0.2 and 0.1, in the units that a layer receives, and the mean of 10 passes is deployed.

    learnt: parametric noise injection (PNI, He et al. 2019, on activations): first and inner are where each layer's
    amplitude starts (theirs 0.25), in standard deviations of its input. threat: train on clean and PGD examples in
    equal parts, as PNI does, since on clean images alone a learnt amplitude falls to 0.

    first: the size of noise before the first convolution, at least 0. inner: that before all others, at least 0.
    passes: whose mean is deployed, at least 1. steps: of PGD in training, at least 1.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "Gaussian noise before every convolution, of fixed or learnt size"
    paper: ClassVar[str] = "RSE: Liu et al. 2018, arXiv:1712.00673; PNI: He et al. 2019, arXiv:1811.09310"
    family: ClassVar[str] = "noise"

    first: float = 0.2
    inner: float = 0.1
    learnt: bool = False
    passes: int = 1
    threat: str | None = None
    steps: int = 7

    def __post_init__(self) -> None:
        for name in ("first", "inner"):
            check(name, getattr(self, name), 0, LOUDEST, "the size of noise, where white is 1")
        check_counts(self, "passes", "steps")
        if self.threat is not None:
            ThreatModel.parse(self.threat)

    def as_trained(self) -> NoiseLayers:
        return replace(self, passes=1)

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        net = NoisyNet(base, self.first, self.inner, self.learnt, self.passes)
        return trainer.fit(net, self.as_trained(), draws)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        clean = F.cross_entropy(call(net, x, draws.stream("clean")), y)
        if self.threat is None:
            return clean
        return (clean + F.cross_entropy(call(net, self._crafted(net, x, y, draws), draws.stream("adversarial")), y)) / 2

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        if self.threat is None:
            return None
        x_adv = self._crafted(net, x, y, draws)
        with torch.no_grad():
            return float((call(net, x_adv, draws.stream("judged")).argmax(1) == y).float().mean())

    def _crafted(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        assert self.threat is not None
        threat = ThreatModel.parse(self.threat)
        return ascend(net, x, y, threat, draws, self.steps, 2.5 * threat.eps / self.steps)
