"""Logits of few bits, which tie often, as the class that is deployed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended, call, is_stochastic, rejection, undefended
from robustbench_local.core.draws import Draws

_STEP = 2.0**-20  # of the largest logit: float32 tells it, and 4,000 of them are less than one step of 8 bits


class FirstOfTied(Defended):
    """A network's logits (N, K), of which no two are equal: where they were, the first class is ahead by a trifle.

    A judge counts a tie as an error, since rounding may decide it otherwise next time. Whole numbers are exact, and
    what is deployed names the first of the largest logits, as argmax does: that class is the answer. Of 8 bits the two
    largest are equal on some per cent of the images.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.stochastic, self.rejects = is_stochastic(net), rejection(net)
        self.clean_accuracy = getattr(net, "clean_accuracy", None)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        out = call(self.net, x, draws)
        size = out.detach().abs().amax(1, keepdim=True)
        return out - _STEP * size * torch.arange(out.shape[1], device=out.device)

    def undefended(self) -> nn.Module | None:
        inner = undefended(self.net)
        return None if inner is None else FirstOfTied(inner).eval()
