"""Mahalanobis distance as a detector: an image is suspicious whose features are far from those of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses._detector import BLOCK, Detecting, Detector, answer
from defenses._wrapper import check
from robustbench_local.draws import Draws
from robustbench_local.errors import ConfigError
from robustbench_local.train import Trainer


class Distant(Detector):
    """The score is the log of the squared Mahalanobis distance from the nearest class, in the features that the
    network's last linear layer reads: one Gaussian per class, all with the same covariance (Lee et al. 2018,
    equation 2). means (K, D); whiten (D, D): features times this have unit covariance about their class's mean.
    """

    means: Tensor
    whiten: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        linear = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(f"{type(net).__name__} has no linear layer, whose features density_detector would read")
        self.name, layer = linear[-1]
        self.register_buffer("means", torch.zeros(layer.out_features, layer.in_features))
        self.register_buffer("whiten", torch.eye(layer.in_features))

    def measure(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        logits, features = self.features(x, draws)
        away = (features[:, None] - self.means) @ self.whiten
        nearest = away.square().sum(2).amin(1)
        return logits, nearest.clamp_min(torch.finfo(nearest.dtype).tiny).log()

    def features(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and what the last linear layer read (N, D), of one pass."""
        read: list[Tensor] = []
        layer = self.net.get_submodule(self.name)
        hook = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            logits = answer(self.net, x, draws, "net")
        finally:
            hook.remove()
        if len(read) != 1:
            raise ConfigError(f"the network asks its last linear layer {len(read)} times per image: density_detector"
                              " reads the features of a single pass")  # fmt: skip
        return logits, read[0].to(x.dtype)


@dataclass(frozen=True)
class DensityDetector(Detecting):
    """Lee et al. 2018 at the penultimate layer, without their input preprocessing and their ensemble of layers.

    images: how many training images, at most, the Gaussians are fitted to. ridge: added to the covariance's diagonal,
    as a share of its mean, because some features never vary.
    """

    summary: ClassVar[str] = "rejects what is far from every class in the features of the last layer (Mahalanobis)"
    paper: ClassVar[str] = "Lee et al. 2018, arXiv:1807.03888; broken by Carlini and Wagner 2017's joint attack"

    images: int = 10_000
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check("images", self.images, 100, 10_000_000, "training images")
        check("ridge", self.ridge, 1e-9, 1, "a share of the covariance's mean diagonal")

    def around(self, net: nn.Module) -> Detector:
        return Distant(net)

    @torch.no_grad()
    def fit(self, detector: Detector, trainer: Trainer, rows: Tensor, draws: Draws) -> None:
        assert isinstance(detector, Distant)
        images, rows = trainer.images, rows[: self.images]
        parts = [detector.features(images[part], draws.reseat(images.ids[part]))[1] for part in rows.split(BLOCK)]
        features, y = torch.cat(parts).double(), images.labels[rows]
        means = features.new_zeros(detector.means.shape)
        counts = torch.bincount(y, minlength=len(means)).clamp_min(1)
        means = means.index_add(0, y, features) / counts[:, None]
        within = features - means[y]
        covariance = within.mT @ within / len(within)
        covariance.diagonal().add_(self.ridge * covariance.diagonal().mean())
        values, vectors = torch.linalg.eigh(covariance)
        detector.means.copy_(means)
        detector.whiten.copy_(vectors * values.rsqrt())
