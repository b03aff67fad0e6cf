"""JPEG at several qualities: the networks' vote, or a quality drawn for every block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core.defense import Defended, Deployed, call, is_stochastic, undefended
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Trainer
from robustbench_local.defenses._wrapper import Step, Wrapper
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.ops import jpeg

Compress = Callable[[Tensor, int, jpeg.Subsampling], Tensor]


@dataclass(frozen=True)
class MultiJPEG(Wrapper):
    """mode local: each block of 8 x 8 pixels comes from the image at a quality drawn anew (SHIELD's SLQ; random).

    mode vote: the network sees the image at every quality, and the class that most of them name is the answer.

    qualities: those that are mixed, one or more from 1 to 100. mode: whether qualities are mixed block by block or
    vote. subsampling: how coarsely colour is kept.
    """

    stochastic: ClassVar[bool] = True
    summary: ClassVar[str] = "JPEG at several qualities: a vote, or a random one per block (SHIELD)"
    paper: ClassVar[str] = "Das et al. 2017, arXiv:1705.02900 (vote); 2018, arXiv:1802.06816 (SHIELD)"
    family: ClassVar[str] = "preprocessing"
    version: ClassVar[int] = 2

    qualities: tuple[int, ...] = (20, 40, 60, 80)
    mode: Literal["local", "vote"] = "local"
    subsampling: jpeg.Subsampling = "4:2:0"

    def __post_init__(self) -> None:
        if not self.qualities:
            raise ConfigError("qualities is empty: give one or more")
        jpeg.check_settings(self.qualities, self.subsampling)

    def apply(self, x: Tensor, draws: Draws | None) -> Tensor:
        return self._mixed(x, draws, jpeg.compressed)

    def soft(self, x: Tensor, draws: Draws | None) -> Tensor:
        return self._mixed(x, draws, jpeg.softly)

    def _mixed(self, x: Tensor, draws: Draws | None, compress: Compress) -> Tensor:
        """Each block from the quality that it draws."""
        assert draws is not None
        height, width = x.shape[2:]
        choice = draws.integers(len(self.qualities), 1, -(-height // 8), -(-width // 8))
        choice = choice.repeat_interleave(8, 2)[:, :, :height].repeat_interleave(8, 3)[..., :width]
        out = x
        for place, quality in enumerate(self.qualities):
            out = torch.where(choice == place, compress(x, quality, self.subsampling), out)
        return out

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        if self.mode == "local":
            return super().build(base, trainer, draws)
        steps = [Step(JPEG(quality, self.subsampling)) for quality in self.qualities]
        return Vote([Deployed(base, [step]) for step in steps])


class Vote(Defended):
    """Votes for each class plus the mean probability, which decides between equals; its gradient is that of the log of
    the mean probability, as votes have none."""

    surrogate_gradients = True

    def __init__(self, voters: list[Deployed]) -> None:
        super().__init__()
        self.voters = nn.ModuleList(voters)
        self.stochastic = any(map(is_stochastic, voters))
        self.rejects = voters[0].rejects

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        streams = [None if draws is None else draws.stream(f"voter:{k}") for k in range(len(self.voters))]
        answers = torch.stack([call(voter, x, own) for voter, own in zip(self.voters, streams, strict=True)])
        mean = answers.softmax(2).mean(0)
        votes = F.one_hot(answers.argmax(2), answers.shape[2]).sum(0)
        soft = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
        return (votes + mean).detach() + (soft - soft.detach())

    def undefended(self) -> nn.Module | None:
        return undefended(self.voters[0])  # all vote with the same network
