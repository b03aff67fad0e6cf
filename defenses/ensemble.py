"""An ensemble: several networks that differ in their start and in the order of images answer together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defended, Defense, call, draws_for, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.model_state import seeded
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.defenses._passes import log_probabilities, mean_probability


class Together(Defended):
    """The log of the members' mean probability."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.stochastic = any(is_stochastic(member) for member in members)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        passes = [partial(call, member, draws=draws.stream(k)) for k, member in enumerate(self.members)]
        return mean_probability(log_probabilities(x, passes))


@dataclass(frozen=True)
class Ensemble(Defense, Recipe):
    """Networks trained plainly from several seeds; the mean of their probabilities decides (Lakshminarayanan et al.
    2017, without their adversarial examples). He et al. 2017 (arXiv:1706.04701) show how little it defends.

    members: how many networks, at least 2.
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "the mean probability of networks trained from several seeds"
    paper: ClassVar[str] = "Lakshminarayanan et al. 2017, arXiv:1612.01474"
    family: ClassVar[str] = "ensemble"

    members: int = 3

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ConfigError(f"members is {self.members}: an ensemble has at least 2")

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        nets = [_begun_anew(base, k) if k else base for k in range(self.members)]
        return Together(
            [trainer.fit(net, self, draws.stream(f"member:{k}"), seed=trainer.seed + k) for k, net in enumerate(nets)]
        ).eval()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(x), y)


def _begun_anew(net: nn.Module, seed: int) -> nn.Module:
    """A copy with other initial weights, which depend on the seed alone: they are drawn on the CPU."""
    device = next(net.parameters()).device
    fresh = copy.deepcopy(net).cpu()
    with seeded(seed):
        for module in fresh.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return fresh.to(device)
