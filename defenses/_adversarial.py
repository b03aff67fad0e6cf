"""What the defenses that train on adversarial examples share: the inner maximisation, and weight perturbation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robustbench_local.config.settings import check_counts
from robustbench_local.core import losses
from robustbench_local.core.defense import Defense, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.losses import Loss
from robustbench_local.core.threat import Norm, ThreatModel, parse_number
from robustbench_local.core.training import Recipe, Trainer


def ascend(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    draws: Draws,
    steps: int,
    size: float,
    *,
    loss: Loss | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """The inner maximisation, in whatever mode net is in: steps of `size` up the loss (cross-entropy), from `start`.

    The loss takes (logits, y) and returns a number per sample; the default start is random in the ball.
    """
    x_adv = threat.start(x, draws) if start is None else start
    loss = loss or losses.ce
    for step in range(steps):
        x_adv.requires_grad_()
        logits = call(net, x_adv, draws.stream(f"ascent:{step}"))
        (grad,) = torch.autograd.grad(loss(logits, y).sum(), x_adv)
        x_adv = threat.climb(x_adv.detach(), grad, x, size)
    return x_adv.detach()


@dataclass(frozen=True)
class Adversarial(Defense, Recipe):
    """Training on examples crafted against the network as it is; subclasses say how (craft) and what is lowered.

    threat: any ball, "linf:8/255". step_size: in pixels, by default 2.5 eps / steps.
    ramp: the share of training over which eps grows from 0, for large eps at which a fresh network learns nothing.
    gamma: the size of adversarial weight perturbation (AWP, Wu et al. 2020, arXiv:2004.05884), as a share of each
    layer's norm; 0: none, theirs 0.005 to 0.01. It costs one more pass.
    validate attacks held-out training images with PGD, so that the trainer keeps the most robust epoch.

    steps: of crafting, at least 1.
    """

    trains: ClassVar[bool] = True

    threat: str = "linf:8/255"
    steps: int = 10
    step_size: str | float | None = None
    ramp: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        ThreatModel.parse(self.threat)
        check_counts(self, "steps")
        if not 0 <= self.ramp <= 1:
            raise ConfigError(f"ramp is {self.ramp}: it is a share of training, in [0, 1]")
        if not 0 <= self.gamma < 1:
            raise ConfigError(f"gamma is {self.gamma}: it is a share of a layer's norm, in [0, 1), such as 0.005")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        return trainer.fit(base, self, draws)

    def at(self, progress: float) -> Self:
        if progress >= self.ramp:
            return self
        threat = self.ball
        eps = threat.eps * progress / self.ramp
        return replace(self, threat=f"{threat.norm}:{int(eps) if threat.norm is Norm.L0 else eps}", ramp=0.0)

    @property
    def ball(self) -> ThreatModel:
        return ThreatModel.parse(self.threat)

    @property
    def size(self) -> float:
        """Of one step, in pixels."""
        return 2.5 * self.ball.eps / self.steps if self.step_size is None else parse_number(self.step_size)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """x_adv in the ball, like x."""
        raise NotImplementedError

    def from_nearby(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws, loss: Loss | None = None) -> Tensor:
        """As TRADES and MART craft: net in evaluation mode, from a small Gaussian step off x."""
        start = self.ball.project(x + 0.001 * draws.normal(*x.shape[1:]), x)
        training = net.training
        net.eval()
        x_adv = ascend(net, x, y, self.ball, draws, self.steps, self.size, loss=loss, start=start)
        net.train(training)
        return x_adv

    def outer(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """() what the weights lower."""
        raise NotImplementedError

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return self.outer(net, x, self.craft(net, x, y, draws), y, draws.stream("outer"))

    def step(self, net: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, draws: Draws) -> Tensor:
        if not self.gamma:
            return super().step(net, x, y, optimizer, draws)
        x_adv = self.craft(net, x, y, draws)
        layers = [weight for weight in net.parameters() if weight.requires_grad and weight.ndim > 1]
        slopes = torch.autograd.grad(self.outer(net, x, x_adv, y, draws.stream("outer")), layers)
        shifts = [
            self.gamma * weight.detach().norm() * slope / slope.norm().clamp_min(torch.finfo(slope.dtype).tiny)
            for weight, slope in zip(layers, slopes, strict=True)
        ]
        _shift(layers, shifts, 1)
        loss = self.outer(net, x, x_adv, y, draws.stream("outer"))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _shift(layers, shifts, -1)
        optimizer.step()
        return loss.detach()

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        x_adv = ascend(net, x, y, self.ball, draws, steps=10, size=0.25 * self.ball.eps)
        with torch.no_grad():
            return float((call(net, x_adv, draws.stream("judged")).argmax(1) == y).float().mean())


@torch.no_grad()
def _shift(weights: list[nn.Parameter], shifts: list[Tensor], sign: int) -> None:
    for weight, shift in zip(weights, shifts, strict=True):
        weight.add_(shift, alpha=sign)
