"""How an oracle asks: every image is paid for, answered by draws of its own, and remembered where it succeeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.answers import laid_out
from robustbench_local.core.decision import joined, success_margin
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError
from robustbench_local.core.metered import SpentError, places
from robustbench_local.core.view import LedgerView


class Queries(LedgerView):
    """Metered, remembered questions about clean images _x (N, C, H, W) whose classes, or targets, are _y (N,)."""

    targeted: bool
    width: int
    _answer: Callable[[Tensor, Draws | None], Tensor]
    _access: Access
    _x: Tensor
    _y: Tensor
    _draws: Draws
    _chunk: int
    _joins: bool

    def __getitem__(self, rows: Tensor) -> Self:
        """The same meter and memory, for these samples (indices, where one may come more than once, or a mask)."""
        everyone = torch.arange(len(self._ledger.broken), device=self._x.device) if self._rows is None else self._rows
        mine = everyone[rows]
        return self._but(
            _rows=mine, _ones=torch.ones_like(mine), _x=self._x[rows], _y=self._y[rows], _draws=self._draws[rows]
        )

    def narrowed(self, access: Access) -> Self:
        """The same meter and memory, with this access where that is less."""
        return self._but(_access=min(self._access, access))

    @property
    def access(self) -> Access:
        """What it answers."""
        return self._access

    @property
    def classes(self) -> int:
        """K, from the shape of one output; no query is counted."""
        if self._ledger.classes is None:
            with torch.no_grad():
                self._ledger.classes = self._forward(self._x[:1], self._draws[:1].stream("shape"), self._y[:1]).shape[1]
        return self._ledger.classes

    def __len__(self) -> int:
        return len(self._x)

    def _require(self, access: Access, what: str) -> None:
        if self.access < access:
            raise AccessError(
                f"this attack was granted {self.access.name} and asked for {what}, which needs {access.name}:"
                " its `access` understates what it uses"
            )

    def _add(self, forwards: int, backwards: int) -> None:
        for meter, spent in ((self._ledger.forwards, forwards), (self._ledger.backwards, backwards)):
            if self._rows is None:
                meter += spent
            elif spent:
                meter.index_add_(0, self._rows, self._ones, alpha=spent)

    def _live(self, forwards: int) -> Tensor | None:
        """None where every sample can pay for so many forward passes, otherwise which can (N,)."""
        if self._ledger.budget is None:
            return None
        live = self.forwards + forwards <= self._ledger.budget
        return None if live.all() else live

    def _parts(self, count: int) -> list[Tensor] | None:
        """Of a query for gradients at `count` images: None where all are asked about at once, otherwise which in turn,
        `width` of those that can pay at a time.
        """
        live = self._live(self.eot)
        if live is None and count <= self.width:
            return None
        rows = torch.arange(count, device=self._x.device) if live is None else live.nonzero()[:, 0]
        return [part for part in rows.split(self.width) if len(part)]

    def _query_draws(self, owner: Tensor | None = None) -> list[Draws | None]:
        """The eot draws of each query, addressed by what its sample has spent, so that they are the same in any batch.

        owner (M,): which samples are asked about, None for each once. Several queries of one sample have the draws that
        they would have had in turn.
        """
        if not self.stochastic:
            return [None]
        stream, spent = self._draws.stream("search"), self.forwards
        if owner is not None:
            stream = stream.with_ids(self._draws.ids[owner])
            spent = spent[owner] - places(owner, len(spent)) * self.eot
        return [stream.with_counter(spent - k) for k in range(self.eot)]

    def _ask(self, x: Tensor) -> Tensor:
        """Logits of a population, metered and remembered."""
        population = x.shape[1:-3]
        size = math.prod(population)
        live = self._live(size * self.eot)
        if live is not None:
            frozen = x.new_full((len(x), *population, self.classes), torch.nan)
            if live.any():
                frozen[live] = self[live]._ask(x[live])
            return frozen
        self._add(size * self.eot, 0)
        flat = x.reshape(-1, *x.shape[-3:])
        y = self._y if size == 1 else self._y.repeat_interleave(size)
        everyone = torch.arange(len(x), device=x.device)
        streams = self._query_draws(None if size == 1 else everyone.repeat_interleave(size))
        logits, about = [], []
        with torch.no_grad():
            for first in range(0, max(1, len(flat)), self._chunk):
                rows = slice(first, first + self._chunk)
                images = laid_out(flat[rows])
                answers = [self._forward(images, stream and stream[rows], y[rows]) for stream in streams]
                logits.append(_mean(answers))
                about.append(_mean([self._margin_and_size(answer, y[rows]) for answer in answers]))
        self._remember(flat, torch.cat(about, 1))
        answer = torch.cat(logits)
        return answer.view(len(x), *population, answer.shape[1])

    def _ask_any(self, x: Tensor, owner: Tensor) -> Tensor:
        """Logits of images x (M, C, H, W) of the samples `owner` (M,), in any number and order; gradients pass."""
        graded = torch.is_grad_enabled() and x.requires_grad
        if graded:
            self._require(Access.GRADIENTS, "gradients")
        count = torch.bincount(owner, minlength=len(self)) * self.eot
        budget = self._ledger.budget
        if budget is not None and bool((self.forwards + count > budget)[owner].any()):
            raise SpentError(f"the budget of {budget} forward passes is spent")
        mine = slice(None) if self._rows is None else self._rows
        self._ledger.forwards[mine] += count
        asked, streams = self[owner], self._query_draws(owner)

        def seen(grad: Tensor) -> Tensor:
            self._ledger.record_gradient(grad, asked._rows)
            return grad.contiguous()  # other people's attacks view what they are given

        def paid(_: Tensor) -> None:
            self._ledger.backwards[mine] += count

        with torch.set_grad_enabled(graded):
            if graded:
                x = x.view_as(x)  # the caller's own may get gradients from elsewhere
                x.register_hook(seen)
            parts = []
            for first in range(0, max(1, len(x)), self._chunk):
                rows = slice(first, first + self._chunk)
                answers = [self._forward(x[rows], stream and stream[rows], asked._y[rows]) for stream in streams]
                parts.append(_mean(answers))
            logits = torch.cat(parts)
        asked._remember(x.detach(), asked._margin_and_size(logits.detach()))
        if graded:
            logits.register_hook(paid)
        return logits

    def _forward(self, x: Tensor, draws: Draws | None, y: Tensor | None = None) -> Tensor:
        """Logits of images x (M, C, H, W) whose samples are of classes y (M,), by default this view's own."""
        out = self._answer(x, draws).to(x.dtype)  # margins and losses in full, whatever the search's precision
        return joined(out, self._y if y is None else y) if self._joins else out

    def _margin_and_size(self, logits: Tensor, y: Tensor | None = None) -> Tensor:
        """(2, M): the attacker's margin, and the size of the logits that it is a difference of."""
        y = self._y if y is None else y
        return torch.stack([success_margin(logits, y, targeted=self.targeted), losses.size(logits, y)])

    def _remember(self, x_adv: Tensor, about: Tensor) -> None:
        self._ledger.record_size(about[1], self._rows)
        if self._every_iterate:
            self._ledger.remember(x_adv, about[0], self._x, self._rows)


def _mean(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)
