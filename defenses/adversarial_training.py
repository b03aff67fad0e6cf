"""Adversarial training: minimise the loss on examples crafted against the network as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._adversarial import Adversarial, ascend

METHODS = ("pgd", "fgsm_rs", "free")


@dataclass(frozen=True)
class AdversarialTraining(Adversarial):
    """PGD training (Madry et al. 2018, equation 2.1), FGSM from a random start (Wong et al. 2020, algorithm 3), or
    free training (Shafahi et al. 2019, algorithm 1).

    step_size: in pixels, by default 2.5 eps / steps for pgd, 1.25 eps for fgsm_rs and eps for free. pgd_from: the share
    of training from which fgsm_rs hands over to PGD, as single steps grow weak late in training. Of free training every
    batch is replayed `steps` times, and each pass moves the weights and the perturbation alike, so that training costs
    as much as plain training of steps times the epochs. A batch's perturbation starts at random, where the paper starts
    at the last batch's. With a weight perturbation gamma (AWP) only pgd and fgsm_rs go.

    method: how training images are crafted. steps: of crafting, at least 1, or how often a batch is replayed.
    """

    summary: ClassVar[str] = "training on PGD, random-start FGSM or free examples, with AWP where gamma is not 0"
    paper: ClassVar[str] = (
        "Madry et al. 2018, arXiv:1706.06083; Wong et al. 2020, arXiv:2001.03994;"
        " Shafahi et al. 2019, arXiv:1904.12843; Wu et al. 2020, arXiv:2004.05884"
    )
    family: ClassVar[str] = "adversarial training"

    method: Literal["pgd", "fgsm_rs", "free"] = "pgd"
    steps: int = 7
    pgd_from: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise ConfigError(f'method "{self.method}" is unknown: {", ".join(METHODS)}')
        if not 0 <= self.pgd_from <= 1:
            raise ConfigError(f"pgd_from is {self.pgd_from}: it is a share of training, in [0, 1]")
        if self.method == "free" and (self.gamma or self.pgd_from < 1):
            raise ConfigError(f"gamma is {self.gamma}, pgd_from {self.pgd_from}: free training takes neither")

    def at(self, progress: float) -> Self:
        late = self.method == "fgsm_rs" and progress >= self.pgd_from
        now = replace(self, method="pgd") if late else self
        return super(AdversarialTraining, now).at(progress)

    @property
    def size(self) -> float:
        if self.step_size is None and self.method != "pgd":
            return {"fgsm_rs": 1.25, "free": 1.0}[self.method] * self.ball.eps
        return super().size

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return ascend(net, x, y, self.ball, draws, 1 if self.method == "fgsm_rs" else self.steps, self.size)

    def outer(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(call(net, x_adv, draws), y)

    def step(self, net: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, draws: Draws) -> Tensor:
        if self.method != "free":
            return super().step(net, x, y, optimizer, draws)
        x_adv = self.ball.start(x, draws)
        loss = x.new_zeros(())
        for turn in range(self.steps):
            x_adv.requires_grad_()
            loss = self.outer(net, x, x_adv, y, draws.stream(f"free:{turn}"))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            assert x_adv.grad is not None
            slope, x_adv = x_adv.grad, x_adv.detach()
            x_adv = self.ball.climb(x_adv, slope, x, self.size)
        return loss.detach()
