"""A network with a detector of adversarial images beside it: the K+1-th logit, and where its threshold comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended, Defense, Rejection, call, is_stochastic, rejection, undefended
from robustbench_local.core.device import in_float64
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Trainer
from robustbench_local.defenses._wrapper import check

HELD_OUT = 2000  # training images by which a threshold is set: those that a Schedule, too, holds out
BLOCK = 250


class Detector(Defended):
    """Logits (N, K) of a network, and a last one, max_k z_k + (score - threshold) / spread, which is the largest
    exactly where an image's score is above the threshold. So joined they are one classifier of K + 1 classes (Carlini
    and Wagner 2017, arXiv:1705.07263), whose gradient is that of both.

    Subclasses give the score, on a scale of logarithms: a reject logit that outgrows the others by hundreds would
    leave cross-entropy without a gradient, which is no merit of a detector.
    """

    rejects = Rejection.DETECTION
    threshold: Tensor
    spread: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if rejection(net) is not Rejection.NONE:
            raise ConfigError(f"{type(net).__name__} rejects images already: a detector goes around one that does not")
        self.net = net
        self.stochastic = is_stochastic(net)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def train(self, mode: bool = True) -> Detector:
        """The network stays in evaluation mode, in which it was trained to be deployed."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits, score = self.measure(x, draws)
        reject = logits.amax(1) + (score - self.threshold) / self.spread
        return torch.cat([logits, reject[:, None]], 1)

    def measure(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """The network's logits (N, K) and scores (N,), higher where more suspicious."""
        raise NotImplementedError

    def undefended(self) -> nn.Module:
        return undefended(self.net) or self.net

    @torch.no_grad()
    def calibrate(self, scores: Tensor, fpr: float) -> None:
        """Set threshold and spread by the scores (n,) of clean images, of which at most a share of fpr are above it.

        The spread is the way from their median to the threshold.
        """
        order = in_float64(scores).sort(descending=True).values
        above = int(fpr * len(order))
        threshold = order[max(above - 1, 0) : above + 1].mean() if above < len(order) else order[-1]
        spread = threshold - order.median()
        self.threshold.copy_(threshold)
        self.spread.copy_(spread if spread > 0 else torch.ones_like(spread))


@dataclass(frozen=True)
class Detecting(Defense):
    """Puts a Detector around any network, trained or wrapped, which stays as it is.

    fpr: the share of clean training images that may be rejected. The threshold is set by the last 2,000 training
    images (half of all where there are fewer than 4,000), which training holds out by default: images that the network
    has learnt look less suspicious than new ones do.
    """

    learns: ClassVar[bool] = True

    fpr: float = 0.05

    def __post_init__(self) -> None:
        check("fpr", self.fpr, 0, 0.5, "a share of clean images; the papers take 0.05")

    def around(self, net: nn.Module) -> Detector:
        """The detector, not yet fitted to anything."""
        raise NotImplementedError

    def fit(self, detector: Detector, trainer: Trainer, rows: Tensor, draws: Draws) -> None:
        """Fit what the score is made of to these training images; rows are indices into trainer.images."""

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        detector = self.around(base).eval()
        if trainer.blank:
            return detector
        images = trainer.images
        device = images.labels.device
        detector.to(device)
        rows = torch.arange(len(images), device=device)
        seen, new = rows.split((len(rows) - min(HELD_OUT, len(rows) // 2), min(HELD_OUT, len(rows) // 2)))
        self.fit(detector, trainer, seen, draws.stream("fit"))
        detector.calibrate(scores(detector.eval(), trainer, new, draws.stream("calibrate")), self.fpr)
        return detector


@torch.no_grad()
def scores(detector: Detector, trainer: Trainer, rows: Tensor, draws: Draws) -> Tensor:
    """(n,) scores of these training images."""
    images = trainer.images
    parts = [detector.measure(images[part], draws.with_ids(images.ids[part]))[1] for part in rows.split(BLOCK)]
    return torch.cat(parts)


def answer(net: nn.Module, x: Tensor, draws: Draws | None, stream: str) -> Tensor:
    """The network's logits at x, from a stream of its own, in the precision of x."""
    return call(net, x, draws.stream(stream) if draws is not None else None).to(x.dtype)
