"""A denoising autoencoder in front of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.config.settings import check_counts
from robustbench_local.core.defense import Defense, Deployed, Preprocess
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.ops.noise import Kind, check_noise, noisy


class Denoiser(Preprocess):
    """Two strided convolutions down and two transposed ones up, beside one that keeps the detail, then a sigmoid.

    (N, C, H, W) -> (N, C, H, W) in [0, 1]. Images whose sides 4 does not divide are repeated at their lower and right
    edges meanwhile.
    """

    surrogate = None  # type: ignore[assignment]

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(channels, channels, 5, padding=2)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.logits(x).sigmoid()

    def logits(self, x: Tensor) -> Tensor:
        """Of the pixels, before the sigmoid."""
        height, width = x.shape[2:]
        if height % 4 or width % 4:
            x = F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        out: Tensor = self.layers(x) + self.detail(x)
        return out[..., :height, :width]


@dataclass(frozen=True)
class Autoencoder(Defense, Recipe):
    """A network trained plainly, then an autoencoder trained to give back an image from a noisy one (Gu and Rigazio
    2015). An attacker who differentiates through both meets no obstacle.

    kind and amplitude: the noise in training (ops/noise.py); width: channels after the first convolution.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "a trained denoising autoencoder in front of the network"
    paper: ClassVar[str] = "Gu and Rigazio 2015, arXiv:1412.5068"
    family: ClassVar[str] = "denoising"

    kind: Kind = "gaussian"
    amplitude: float = 0.2
    width: int = 32

    def __post_init__(self) -> None:
        check_noise(self.kind, self.amplitude)
        check_counts(self, "width")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        net = trainer.fit(base, self, draws.stream("network"))
        channels = next(module.in_channels for module in base.modules() if isinstance(module, nn.Conv2d))
        with seeded(0):
            denoiser = Denoiser(channels, self.width)
        wanted = [parameter.requires_grad for parameter in net.parameters()]
        net.requires_grad_(False)
        whole = trainer.fit(Deployed(net, [denoiser]), Reconstruction(self.kind, self.amplitude), draws.stream("front"))
        for parameter, grad in zip(net.parameters(), wanted, strict=True):
            parameter.requires_grad_(grad)
        return whole

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x), y)


@dataclass(frozen=True)
class Reconstruction(Recipe):
    """Cross-entropy of the pixels that come out of the step in front (Vincent et al. 2008, equation 2, with noise of
    our kinds): squared error would die in the sigmoid's tails. The network behind has no part in it.
    """

    kind: Kind
    amplitude: float

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        assert isinstance(net, Deployed)
        (front,) = net.steps
        assert isinstance(front, Denoiser)
        damaged = noisy(x, self.kind, self.amplitude, draws).clamp(0, 1)
        return F.binary_cross_entropy_with_logits(front.logits(damaged), x)
