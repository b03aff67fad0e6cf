"""Training by intervals: what is lowered is a bound of the loss over a box, so that what is learnt can be certified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.bounds.interval import Interval, propagate
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import Norm
from robustbench_local.defenses._adversarial import Adversarial, ascend


@dataclass(frozen=True)
class Ibp(Adversarial):
    """kappa times the cross-entropy at x, plus 1 - kappa times that of the worst logits of a box (Gowal et al. 2018).

    The worst logits are bounded by intervals. With ratio 1 the box is the ball; with less it is smaller, around an
    image that PGD found in the ball (SABR, Müller et al. 2023), which leaves more accuracy, and less that intervals
    certify. Trained for more than what is to be certified (0.4 for 0.3), a network is certified for more images.

    threat: the ball to be certified, of linf alone. warmup: the share of training, before the ramp, that is on clean
    images. kappa: at the end of the ramp, over which it falls from 1; in [0, 1]. ratio: the box's radius as a share of
    eps, in (0, 1]; steps and step_size are those of PGD where it is less than 1.
    validate gives the share that intervals certify at ratio 1, else what PGD leaves.
    """

    summary: ClassVar[str] = "IBP training: lowers the loss of the worst logits that intervals allow over the ball"
    paper: ClassVar[str] = "Gowal et al. 2018, arXiv:1810.12715; ratio: Müller et al. 2023 (SABR), arXiv:2210.04871"
    family: ClassVar[str] = "certified training"

    threat: str = "linf:0.3"
    steps: int = 8
    ramp: float = 0.5
    warmup: float = 0.05
    kappa: float = 0.5
    ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ball.norm is not Norm.LINF:
            raise ConfigError(f"threat is {self.threat}: intervals are boxes, and know linf alone, such as linf:0.3")
        if not 0 <= self.warmup <= 1 - self.ramp:
            raise ConfigError(
                f"warmup is {self.warmup}: it is a share of training, in [0, {1 - self.ramp:g}], before the ramp"
            )
        if not 0 <= self.kappa <= 1:
            raise ConfigError(f"kappa is {self.kappa}: it must be in [0, 1], the weight of the clean loss")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"ratio is {self.ratio}: it must be in (0, 1], the box's share of the ball")

    def at(self, progress: float) -> Self:
        since = max(0.0, progress - self.warmup)
        if since >= self.ramp:
            return self
        return replace(super().at(since), warmup=0.0, kappa=1 - (1 - self.kappa) * since / self.ramp)

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """The middle of the box, before it is cut to pixels."""
        if self.ratio == 1 or not self.ball.eps:
            return x
        room = replace(self.ball, eps=(1 - self.ratio) * self.ball.eps)
        training = net.training
        net.eval()
        found = ascend(net, x, y, room, draws, self.steps, (1 - self.ratio) * self.size)
        net.train(training)
        return found

    def outer(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, draws: Draws) -> Tensor:
        found = self._interval(net, x, x_adv)
        clean, worst = F.cross_entropy(found.point, y), F.cross_entropy(-found.margins(y), y)
        return self.kappa * clean + (1 - self.kappa) * worst

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        if self.ratio < 1:
            return super().validate(net, x, y, draws)
        with torch.no_grad():
            margins = self._interval(net, x, x).margins(y)
        others = margins.scatter(1, y.unsqueeze(1), torch.inf)
        return float((others.amin(1) > 0).float().mean())

    def _interval(self, net: nn.Module, x: Tensor, middle: Tensor) -> Interval:
        radius = self.ratio * self.ball.eps
        return propagate(net, x, (middle - radius).clamp(min=0), (middle + radius).clamp(max=1))
