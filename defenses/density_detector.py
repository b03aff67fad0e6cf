"""Density as a detector: an image is suspicious whose features lie where those of training images do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustbench_local.core.device import in_float64
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Trainer
from robustbench_local.defenses._detector import BLOCK, Detecting, Detector, answer
from robustbench_local.defenses._wrapper import check

Density = Literal["mahalanobis", "kernel"]


class Featured(Detector):
    """A score of the features that the network's last linear layer reads."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        linear = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(f"{type(net).__name__} has no linear layer, whose features density_detector would read")
        self.name, layer = linear[-1]
        self.classes, self.width = layer.out_features, layer.in_features

    def measure(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        logits, features = self.features(x, draws)
        energy = self.energy(features, logits)
        return logits, energy.clamp_min(torch.finfo(energy.dtype).tiny).log()

    def energy(self, features: Tensor, logits: Tensor) -> Tensor:
        """(N,) at least 0, in units of squared distance: high where features (N, D) are rare."""
        raise NotImplementedError

    def learn(self, features: Tensor, y: Tensor) -> None:
        """From training images' features (n, D), float64, and classes y (n,)."""
        raise NotImplementedError

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
            raise ConfigError(
                f"the network asks its last linear layer {len(read)} times per image: density_detector"
                " reads the features of a single pass"
            )
        return logits, read[0].to(x.dtype)


class Distant(Featured):
    """The squared Mahalanobis distance from the nearest class: one Gaussian per class, all with the same covariance
    (Lee et al. 2018, equation 2). means (K, D); whiten (D, D): features times this have unit covariance about their
    class's mean.
    """

    means: Tensor
    whiten: Tensor

    def __init__(self, net: nn.Module, ridge: float = 1e-3) -> None:
        super().__init__(net)
        self.ridge = ridge
        self.register_buffer("means", torch.zeros(self.classes, self.width))
        self.register_buffer("whiten", torch.eye(self.width))

    def energy(self, features: Tensor, logits: Tensor) -> Tensor:
        away = (features[:, None] - self.means) @ self.whiten
        return away.square().sum(2).amin(1)

    def learn(self, features: Tensor, y: Tensor) -> None:
        means = features.new_zeros(self.means.shape)
        counts = torch.bincount(y, minlength=len(means)).clamp_min(1)
        means = means.index_add(0, y, features) / counts[:, None]
        within = features - means[y]
        covariance = within.mT @ within / len(within)
        covariance.diagonal().add_(self.ridge * covariance.diagonal().mean())
        values, vectors = torch.linalg.eigh(covariance)
        self.means.copy_(means)
        self.whiten.copy_(vectors * values.rsqrt())


class Dense(Featured):
    """-log of the mean of exp(-|f - f_i|^2 / 2 h^2) over the training images i of the class that the network names:
    Gaussian kernels of width h (Feinman et al. 2017, section 4.1, who leave out the 2).

    centres (M, D) are the training images' features and labels (M,) their classes, -1 where there were fewer than M.
    """

    centres: Tensor
    labels: Tensor
    bandwidth: Tensor

    def __init__(self, net: nn.Module, images: int) -> None:
        super().__init__(net)
        self.register_buffer("centres", torch.zeros(images, self.width))
        self.register_buffer("labels", torch.full((images,), -1))
        self.register_buffer("bandwidth", torch.ones(()))

    def energy(self, features: Tensor, logits: Tensor) -> Tensor:
        members = self.labels == logits.detach().argmax(1)[:, None]
        # a class that no training image is of has no density: all images stand for it, where it would be infinite
        members = torch.where(members.any(1, keepdim=True), members, self.labels >= 0)
        kernels = -_squares(features, self.centres) / (2 * self.bandwidth**2)
        return members.sum(1).log() - kernels.masked_fill(~members, -torch.inf).logsumexp(1)

    def learn(self, features: Tensor, y: Tensor) -> None:
        self.centres[: len(features)] = features.to(self.centres)
        self.labels[: len(y)] = y
        self.bandwidth.fill_(likeliest_bandwidth(features, y))


def likeliest_bandwidth(features: Tensor, y: Tensor) -> float:
    """The width h under which each image is likeliest, on average, by the kernels of its class's others.

    features (n, D), classes y (n,). Tried: 41 widths from 1/10 to 10 times the median distance from the nearest of
    the class. Features that never vary do not count as dimensions.
    """
    blocks = [_squares(own, own).fill_diagonal_(torch.inf) for own in map(features.__getitem__, _members(y))]
    middle = torch.cat([block.amin(1) for block in blocks]).median().sqrt().clamp_min(1e-12)
    dimensions = int((features.var(0) > 0).sum())
    widths: list[float] = (middle * torch.logspace(-1, 1, 41, dtype=middle.dtype, device=middle.device)).tolist()

    def likelihood(width: float) -> float:
        each = [(-block / (2 * width**2)).logsumexp(1) - math.log(len(block) - 1) for block in blocks]
        return float(torch.cat(each).mean()) - dimensions * math.log(width)

    return max(widths, key=likelihood)


def _members(y: Tensor) -> list[Tensor]:
    """The rows of every class that has two or more."""
    rows = [(y == k).nonzero()[:, 0] for k in y.unique()]
    return [each for each in rows if len(each) > 1]


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """(N, M): squared distances of rows (N, D) and (M, D); by a product of matrices, so that no (N, M, D) is made."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.mT).clamp_min(0)


@dataclass(frozen=True)
class DensityDetector(Detecting):
    """density mahalanobis: Lee et al. 2018 at the penultimate layer, without their input preprocessing and their
    ensemble of layers. kernel: Feinman et al. 2017, by Gaussian kernels in the same features, whose width makes
    each training image likeliest by the others; without their Bayesian uncertainty.

    images: how many training images, at most, the density is fitted to. ridge: added to the Gaussians' covariance's
    diagonal, as a share of its mean, because some features never vary.

    density: what is fitted to the features.
    """

    summary: ClassVar[str] = "rejects what is rare in the features of the last layer (Mahalanobis, or kernel density)"
    paper: ClassVar[str] = (
        "Lee et al. 2018, arXiv:1807.03888; Feinman et al. 2017, arXiv:1703.00410; broken by Carlini and Wagner 2017's"
        " joint attack"
    )

    density: Density = "mahalanobis"
    images: int = 10_000
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check("images", self.images, 100, 10_000_000, "training images")
        check("ridge", self.ridge, 1e-9, 1, "a share of the covariance's mean diagonal")

    def around(self, net: nn.Module) -> Detector:
        return Dense(net, self.images) if self.density == "kernel" else Distant(net, self.ridge)

    @torch.no_grad()
    def fit(self, detector: Detector, trainer: Trainer, rows: Tensor, draws: Draws) -> None:
        assert isinstance(detector, Featured)
        images, rows = trainer.images, rows[: self.images]
        parts = [detector.features(images[part], draws.with_ids(images.ids[part]))[1] for part in rows.split(BLOCK)]
        features = in_float64(torch.cat(parts))
        detector.learn(features, images.labels[rows].to(features.device))
