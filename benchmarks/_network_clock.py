"""A network that knows how long it was at work, whoever asks it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks._timing import now


class NetworkClock(nn.Module):
    """The network, with the seconds spent in its forward passes and in the backward passes through it.

    The rest of a job's time is the job's own. On a CPU only: elsewhere a call returns before its work is done.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0
        self._began = 0.0

    def forward(self, x: Tensor) -> Tensor:
        started = now(x.device)
        if graded := torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)  # with a hook of its own, which comes last in a backward pass
            x.register_hook(self._end)
        out: Tensor = self.network(x)
        if graded:
            out.register_hook(self._begin)
        self.seconds += now(x.device) - started
        return out

    def _begin(self, slope: Tensor) -> None:
        self._began = now(slope.device)

    def _end(self, slope: Tensor) -> None:
        self.seconds += now(slope.device) - self._began
