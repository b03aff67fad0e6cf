"""Transfer: images crafted on models of the attacker's own, without one question to the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.attacks._learning import check_fit
from robustbench_local.attacks.mim import MIM
from robustbench_local.core.access import Access
from robustbench_local.core.decision import success_margin
from robustbench_local.core.defense import Deployed, Preprocess, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.models.load import open_model
from robustbench_local.storage.checkpoints import weights_digest


@dataclass(frozen=True)
class Transfer(MIM):
    """MI-FGSM on surrogates, with whatever makes gradients less the surrogates' own.

    surrogates: models as a grid names them (zoo:mnist/none, module:function), one or a list; of several the logits are
    averaged (Dong et al. 2018, section 3.4). diversity: how probable it is that the image is shrunk, to no less than
    `shrink` of its size, and padded at random before a step (DI-FGSM, Xie et al. 2019; published: 0.5). translation:
    side of the Gaussian kernel that smooths the gradient, odd, three deviations to either end (TI-FGSM, Dong et al.
    2019; published: 15 for images of 299; 1: none). nesterov: NI-FGSM (Lin et al. 2020).

    shrink: the least share of its side that a shrunk image has, in (0, 1].

    Costs the target nothing; note fools_surrogates: whether the image succeeds on the surrogates.
    """

    access: ClassVar[Access] = Access.NONE
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "momentum attack (MI-, DI-, TI-, NI-FGSM) on given surrogates"
    paper: ClassVar[str] = "Dong et al. 2018, 2019, Xie et al. 2019, Lin et al. 2020"

    surrogates: str | tuple[str, ...] = ()
    diversity: float = 0.0
    shrink: float = 0.9
    translation: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.surrogates:
            raise ConfigError("surrogates is empty: name the models to attack instead, as in zoo:mnist/none")
        if not 0 <= self.diversity <= 1:
            raise ConfigError(f"diversity is {self.diversity}: a probability in [0, 1]")
        if not 0 < self.shrink <= 1:
            raise ConfigError(f"shrink is {self.shrink}: a share of the image's side in (0, 1]")
        if self.translation < 1 or self.translation % 2 == 0:
            raise ConfigError(f"translation is {self.translation}: the side of a kernel is odd and at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.surrogates,) if isinstance(self.surrogates, str) else self.surrogates

    def sources(self) -> dict[str, str]:
        return {name: digest(name) for name in self.names}

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        nets = [surrogate(name, x.device, x.dtype) for name in self.names]
        for name, net in zip(self.names, nets, strict=True):
            check_fit(net, x, int(y.max()) + 1, f"surrogate {name}")
        mean = Ensemble(nets)
        diverse = Deployed(mean, [Diversity(self.diversity, self.shrink)]) if self.diversity else mean
        x_adv = super().__call__(oracle.beside(diverse, Access.GRADIENTS), x, y, threat, draws)
        with torch.no_grad():
            oracle.note("fools_surrogates", success_margin(mean(x_adv), y, targeted=oracle.targeted) >= 0)
        return x_adv

    def smoothed(self, grad: Tensor) -> Tensor:
        """grad convolved with the Gaussian, channel by channel: the mean gradient over translated images."""
        if self.translation == 1:
            return grad
        reach = self.translation // 2
        place = torch.arange(-reach, reach + 1, device=grad.device, dtype=grad.dtype)
        bell = torch.exp(-((3 * place / reach) ** 2) / 2)
        bell = (bell / bell.sum()).view(1, 1, -1, 1).expand(grad.shape[1], 1, -1, 1)
        down = F.conv2d(grad, bell, padding=(reach, 0), groups=grad.shape[1])
        return F.conv2d(down, bell.transpose(2, 3), padding=(0, reach), groups=grad.shape[1])

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 0, 0


class Ensemble(nn.Module):
    """The mean of several models' logits."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([call(net, x, None) for net in self.nets]).mean(0)


class Diversity(Preprocess):
    """With a probability: shrunk to a random size, then padded with black at random.

    Bilinear: the authors' nearest neighbour, made for images of 299, would leave whole rows of small ones no gradient.
    """

    stochastic = True
    surrogate = None  # type: ignore[assignment]

    def __init__(self, probability: float, shrink: float) -> None:
        super().__init__()
        self.probability, self.shrink = probability, shrink

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        share, right, below, chance = draws.uniform(4).to(x).unbind(1)
        scale = self.shrink + (1 - self.shrink) * share
        shift = (1 - scale)[:, None] * (2 * torch.stack([right, below], 1) - 1)  # of the centre, in half sides
        turn = (torch.eye(2).to(x) / scale[:, None, None], -shift[:, :, None] / scale[:, None, None])
        grid = F.affine_grid(torch.cat(turn, 2), list(x.shape), align_corners=False)
        changed = (chance < self.probability).view(-1, 1, 1, 1)
        return torch.where(changed, F.grid_sample(x, grid, mode="bilinear", align_corners=False), x)


@lru_cache(maxsize=8)
def surrogate(name: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model of that name, its weights frozen."""
    return open_model(name, device)[0].to(dtype).requires_grad_(False)


@lru_cache(maxsize=8)
def digest(name: str) -> str:
    """Its weights', and what a user's own does besides them, before it was asked anything."""
    net, own = open_model(name)
    return weights_digest(net) if own is None else f"{weights_digest(net)} {own}"
