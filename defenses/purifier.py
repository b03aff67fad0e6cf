"""A purifier: noise and a denoiser in turn, several times over, before the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from robustbench_local.core.defense import Defense, Deployed, Preprocess, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.core.training import Recipe, Schedule, Trainer
from robustbench_local.defenses._wrapper import check
from robustbench_local.ops.noise import gaussian


class Purifying(Preprocess):
    """x (N, C, H, W), of 1 or 3 channels, becomes what `steps` rounds leave of it: noise of standard deviation sigma,
    in later rounds less of it by equal parts, then the denoiser, which is told how much noise there is.

    The denoiser names the noise, on quarters of the image laid over each other (FFDNet, Zhang et al. 2018). Nothing is
    clipped, so that no gradient is lost. The backward pass makes each round anew, with the same numbers, and holds the
    activations of one round at a time (Chen et al. 2016): its gradients are the plain ones.
    """

    stochastic = True
    surrogate = None  # type: ignore[assignment]

    def __init__(self, sigma: float, steps: int, width: int) -> None:
        super().__init__()
        self.sigma, self.steps = sigma, steps
        with seeded(0):
            self.layers = nn.Sequential(
                nn.Conv2d(13, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 12, 3, padding=1),
            )

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        for k in range(self.steps):
            if torch.is_grad_enabled() and x.requires_grad:
                again = checkpoint(self.round, x, draws, k, use_reentrant=False, preserve_rng_state=False)
                assert isinstance(again, Tensor)
                x = again
            else:
                x = self.round(x, draws, k)
        return x

    def round(self, x: Tensor, draws: Draws, k: int) -> Tensor:
        """The k-th, from 0. Its numbers are of a stream of its own, at its beginning however often it is made."""
        level = self.sigma * (1 - k / self.steps)
        noisy = gaussian(x, level, draws.stream(k))
        return noisy - level * self.noise(noisy, x.new_full((len(x),), level))

    def noise(self, noisy: Tensor, level: Tensor) -> Tensor:
        """(N, C, H, W) like `noisy`: its noise in units of its standard deviation, level (N,)."""
        channels, height, width = noisy.shape[1:]
        even = F.pad(noisy, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else noisy
        quarters = F.pixel_unshuffle(even.expand(-1, 3, -1, -1), 2)
        told = level.view(-1, 1, 1, 1).expand(-1, 1, *quarters.shape[2:])
        found = F.pixel_shuffle(self.layers(torch.cat([quarters, told], 1)), 2)[..., :height, :width]
        return found if channels == 3 else found.mean(1, keepdim=True)


@dataclass(frozen=True)
class Purifier(Defense):
    """Diffusion purification (DiffPure, Nie et al. 2022) with a denoiser of 35,000 weights and a few rounds in place of
    a diffusion model of a hundred million and a hundred rounds: its shape, and the randomness that hides from attacks.

    It goes around any network, which stays as it is, and its denoiser learns from clean training images. It is
    differentiable, and attacked through all of its rounds.

    sigma: the standard deviation of the first round's noise, where white is 1, in (0, 10]. steps: rounds, in 1 .. 100.
    width: channels of the denoiser. images: how many training images, at most, it learns from.
    epochs: how often it sees each of them.
    """

    learns: ClassVar[bool] = True
    summary: ClassVar[str] = "noise and a trained denoiser in turn, several times over"
    paper: ClassVar[str] = "after DiffPure, Nie et al. 2022, arXiv:2205.07460"
    family: ClassVar[str] = "denoising"

    sigma: float = 0.3
    steps: int = 4
    width: int = 32
    images: int = 20_000
    epochs: int = 6

    def __post_init__(self) -> None:
        check("sigma", self.sigma, 1e-6, 10, "the first round's noise, where white is 1")
        for name, most in (("steps", 100), ("width", 1024), ("images", 10_000_000), ("epochs", 1000)):
            check(name, getattr(self, name), 1, most, "a count")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        whole = Deployed(base, [Purifying(self.sigma, self.steps, self.width)]).eval()
        if trainer.blank:
            return whole
        count = min(self.images, len(trainer.images))
        plan = Schedule(
            epochs=self.epochs,
            batch=min(64, count // 2),
            optimizer="adam",
            lr=5e-3,
            weight_decay=0,
            validation=max(1, count // 50),
        )
        wanted = [parameter.requires_grad for parameter in base.parameters()]
        base.requires_grad_(False)
        trainer.beside(plan, count).fit(whole, Denoising(self.sigma), draws)
        for parameter, grad in zip(base.parameters(), wanted, strict=True):
            parameter.requires_grad_(grad)
        return whole


@dataclass(frozen=True)
class Denoising(Recipe):
    """The squared error of the noise that is named (Ho et al. 2020, equation 14), of levels up to sigma. The network
    behind has no part in it.
    """

    sigma: float

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        assert isinstance(net, Deployed)
        (front,) = net.steps
        assert isinstance(front, Purifying)
        level = self.sigma * (1 - draws.stream("level").uniform())  # in (0, sigma]
        noise = draws.stream("noise").normal(*x.shape[1:])
        return F.mse_loss(front.noise(x + level.view(-1, 1, 1, 1) * noise, level), noise)
