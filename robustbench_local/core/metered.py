"""An oracle in the shape that other people's attacks expect: a module, on the same meter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError
from robustbench_local.core.oracle import Access, Oracle


class SpentError(AccessError):
    """The budget ends here: raised through another package's attack, which knows of no budget."""


class Metered(nn.Module):
    """Oracle.as_module: any number of images a call, each counted and remembered for the sample that it belongs to.

    As many images as samples are one each, in order, and of a lone sample all are its own. Otherwise an image belongs
    to the sample whose clean image is nearest in L2, which is certain while perturbations are shorter than half the
    way between two clean images. An attack that asks about images far from their own (most that need labels only) is
    given one sample at a time. A sample that cannot pay for its share of a call ends the attack: SpentError.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle
        # whoever wants to know where the model lives asks its first parameter
        self._place = nn.Parameter(oracle._x.new_zeros(0), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        oracle = self._oracle
        x = x.to(oracle._x.dtype)
        graded = torch.is_grad_enabled() and x.requires_grad
        if graded:
            oracle._require(Access.GRADIENTS, "gradients")
        owner = self._owner(x)
        count = torch.bincount(owner, minlength=len(oracle)) * oracle.eot
        budget = oracle._ledger.budget
        if budget is not None and bool((oracle.forwards + count > budget)[owner].any()):
            raise SpentError(f"the budget of {budget} forward passes is spent")
        self._spend(oracle._ledger.forwards, count)
        streams, y = self._streams(owner, count), oracle._y[owner]

        def led(grad: Tensor) -> Tensor:
            oracle._ledger.led(grad, oracle[owner]._rows)
            return grad.contiguous()  # other people's attacks view what they are given

        with torch.set_grad_enabled(graded):
            if graded:
                x = x.view_as(x)  # the caller's own may get gradients from elsewhere
                x.register_hook(led)
            parts = []
            for rows in torch.arange(len(x), device=x.device).split(oracle._chunk):
                images = x[rows[0] : rows[-1] + 1]
                answers = [oracle._forward(images, stream and stream[rows], y[rows]) for stream in streams]
                parts.append(torch.stack(answers).mean(0))
            logits = torch.cat(parts)
        asked = oracle[owner]
        asked._remember(x.detach(), asked._stand(logits.detach()))
        if graded:
            logits.register_hook(lambda _: self._spend(oracle._ledger.backwards, count))
        return logits

    def _owner(self, x: Tensor) -> Tensor:
        """(M,): the sample that each of the images x (M, C, H, W) belongs to."""
        clean = self._oracle._x
        if len(x) == len(clean):
            return torch.arange(len(x), device=x.device)
        return torch.cdist(x.detach().flatten(1), clean.flatten(1)).argmin(1)

    def _spend(self, meter: Tensor, count: Tensor) -> None:
        rows = slice(None) if self._oracle._rows is None else self._oracle._rows
        meter[rows] += count

    def _streams(self, owner: Tensor, count: Tensor) -> list[Draws | None]:
        """As Oracle._searches: the k-th image of a sample has the numbers that its k-th query would have had."""
        oracle = self._oracle
        if not oracle.stochastic:
            return [None]
        order = owner.argsort(stable=True)
        before = (count.cumsum(0) - count)[owner[order]]
        place = torch.empty_like(owner)
        place[order] = torch.arange(len(owner), device=owner.device) * oracle.eot - before
        stream = oracle._draws.stream("search").reseat(oracle._draws.ids[owner])
        return [stream.numbered(oracle.forwards[owner] - place - k) for k in range(oracle.eot)]
