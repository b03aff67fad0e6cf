"""An oracle in the shape that other people's attacks expect: a module, on the same meter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_local.core.errors import AccessError


class SpentError(AccessError):
    """The budget ends here: raised through another package's attack, which knows of no budget."""


class Metered(nn.Module):
    """Oracle.as_module: any number of images a call, each counted and remembered for the sample that it belongs to.

    As many images as samples are one each, in order, and of a lone sample all are its own. Otherwise an image belongs
    to the sample whose clean image is nearest in L2, which is certain while perturbations are shorter than half the
    way between two clean images. An attack that asks about images far from their own (most that need labels only) is
    given one sample at a time. A sample that cannot pay for its share of a call ends the attack: SpentError.
    """

    def __init__(self, ask: Callable[[Tensor, Tensor], Tensor], clean: Tensor) -> None:
        """ask: images (M, C, H, W) and which of the samples each belongs to (M,) -> logits; clean (N, C, H, W)."""
        super().__init__()
        self._ask, self._clean = ask, clean
        # whoever wants to know where the model lives asks its first parameter
        self._place = nn.Parameter(clean.new_zeros(0), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self._clean.dtype)
        return self._ask(x, self.owners(x))

    def owners(self, x: Tensor) -> Tensor:
        """(M,): the sample that each of the images x (M, C, H, W) belongs to."""
        if len(x) == len(self._clean):
            return torch.arange(len(x), device=x.device)
        return torch.cdist(x.detach().flatten(1), self._clean.flatten(1)).argmin(1)


def places(owner: Tensor, samples: int) -> Tensor:
    """(M,): how many of the images before each one, of so many samples, are of the same owner (M,)."""
    order = owner.argsort(stable=True)
    count = torch.bincount(owner, minlength=samples)
    before = (count.cumsum(0) - count)[owner[order]]
    found = torch.empty_like(owner)
    found[order] = torch.arange(len(owner), device=owner.device) - before
    return found
