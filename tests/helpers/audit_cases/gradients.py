"""Models whose gradients mislead: there are none, or they are not the model's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Deployed, Preprocess
from robustbench_local.core.draws import Draws
from tests.helpers.audit_cases.case import Case, Liar, Wrapped, around, zoo


class Quantised(Wrapped):
    """Four grey levels, and the gradient of rounding: none."""

    def front(self, x: Tensor) -> Tensor:
        return (x * 3).round() / 3


class DeadReLU(Wrapped):
    """A steep pair of ReLUs, dead or saturated at nearly every pixel."""

    def front(self, x: Tensor) -> Tensor:
        steep = 200 * (x - 0.5)
        return F.relu(steep) - F.relu(steep - 1)


class ZeroGradient(Wrapped):
    """The answer is on a branch without gradient; the other one adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answer = super().forward(x)
        return answer + 0 * x.sum()


class HalfDetached(Wrapped):
    """Of two networks only the one that counts less has a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.other = zoo("adversarial_training")

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.other(x.detach())
        return 0.3 * super().forward(x) + hidden


class FlippedHook(Wrapped):
    """Sends gradients back with the other sign."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: -grad)
        return y


class TinyNoiseHook(Wrapped):
    """Sends back noise of the size of the gradient."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: grad.abs().mean() * torch.sin(1e4 * torch.arange(grad.numel())).view_as(grad))
        return y


class FaintHook(Wrapped):
    """Sends back a gradient a million times too small."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: 1e-6 * grad)
        return y


class DetachedWhenUnsure(Wrapped):
    """Where the margin gets small the gradient stops."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        top = logits.detach().topk(2, dim=1).values
        return torch.where((top[:, 0] - top[:, 1] < 5)[:, None], logits.detach(), logits)


class Gated(Wrapped):
    """What looks rough goes through a blur that is not differentiated."""

    def front(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3), keepdim=True) > 0.13
        with torch.no_grad():
            smooth = (F.avg_pool2d(x, 3, 1, 1) > 0.4).to(x)
        return torch.where(rough, smooth, x)


class GradAware(Wrapped):
    """Another network answers while autograd records."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.decoy = zoo("label_smoothing")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.decoy if torch.is_grad_enabled() and x.requires_grad else self.net)(x)
        return out


class Purifying(Wrapped):
    """Moves its own input down its own loss before it answers."""

    def front(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            entropy = -(self.net(leaf).softmax(1) * self.net(leaf).log_softmax(1)).sum()
            slope = torch.autograd.grad(entropy, leaf)[0]
        return (x - 0.1 * slope.sign()).clamp(0, 1)


class WrongSurrogate(Preprocess):
    """Sixteen grey levels, and a surrogate that turns every second pixel or so around."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 15).round() / 15

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        place = torch.arange(x[0].numel(), device=x.device).view_as(x[0])
        return x * (78.233 * place).sin().sign()


LIARS: dict[str, Liar] = {
    "gradient shattering by quantisation": around(Quantised, "gradients are there"),
    "dead-ReLU front": around(DeadReLU, "gradients are there"),
    "zero-gradient branch": around(ZeroGradient, "gradients are there"),
    "gradient detached in one branch": around(HalfDetached, "gradients are true"),
    "backward hook that flips signs": around(FlippedHook, "gradients are true"),
    "backward hook that sends noise": around(TinyNoiseHook, "gradients are true"),
    "surrogate that misleads": Liar(lambda x, y: Case(Deployed(zoo("none"), [WrongSurrogate()])), ("surrogates help",)),
    "backward hook that shrinks": around(FaintHook, "gradients are true"),
    "detached where the margin is small": around(DetachedWhenUnsure, "gradients are there", "gradients are true"),
    "gate for rough images": around(Gated, "gradients are there", "gradients beat what sees less"),
    "another network while autograd records": around(GradAware, "grad mode"),
    "optimises inside inference": around(Purifying, "optimisation in inference"),
    "autoencoder in front": around(nn.Sequential, "a stronger attack", "the number to believe", base="autoencoder"),
}
