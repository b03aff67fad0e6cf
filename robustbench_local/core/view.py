"""What an attacker may see of its own search: what each sample has spent, and what was found for it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from robustbench_local.core import losses
from robustbench_local.core.errors import AccessError
from robustbench_local.core.ledger import Ledger


class LedgerView:
    """A ledger's figures for some of its samples, or for all. All tensors are copies, of these N samples.

    stochastic: the model is random. eot: forward passes averaged per query of such a model.
    """

    stochastic: bool
    eot: int
    _every_iterate: bool
    _ledger: Ledger
    _rows: Tensor | None  # which rows of the ledger these are; None: all
    _ones: Tensor  # as many, where there are rows

    def __setattr__(self, name: str, value: object) -> None:
        raise AccessError(f"an attack set {name} of its oracle, which it may only ask (narrowed() lowers its access)")

    def _but(self, **other: object) -> Self:
        """The same view, with these attributes instead."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, **other)
        return view

    def _mine(self, whole: Tensor) -> Tensor:
        return whole.clone() if self._rows is None else whole[self._rows]

    @property
    def budget(self) -> int | None:
        """Forward passes that a sample may have, None: any number."""
        return self._ledger.budget

    @property
    def broken(self) -> Tensor:
        """(N,) bool: an in-ball image beyond doubt misclassified was seen (never so for a random model)."""
        return self._mine(self._ledger.broken)

    @property
    def remembered(self) -> Tensor:
        """(N,) bool: there is an image to give back, be it only one that ties."""
        return self._mine(self._ledger.score) > -torch.inf

    @property
    def succeeded(self) -> Tensor:
        """(N,) bool: an image beyond doubt misclassified was seen; of a random model, by the mean of search draws."""
        return self._mine(self._ledger.score >= self._ledger.near_tie)

    @property
    def near_tie(self) -> Tensor:
        """(N,) the margin below which a success is a near-tie, for logits of the size answered so far."""
        return self._mine(self._ledger.near_tie)

    @property
    def unit(self) -> Tensor:
        """(N,) what the logits answered so far are measured in: 1 for usual ones, see losses.unit."""
        return losses.unit(self._mine(self._ledger.scale))

    @property
    def every_iterate(self) -> bool:
        """Whether any in-ball success counts, or only what is submitted."""
        return self._every_iterate

    @property
    def unordered(self) -> bool:
        """Whether queries of one sample may be asked in any order: no budget ends them, no draw is numbered by them."""
        return not self.stochastic and self._every_iterate and self._ledger.budget is None

    @property
    def forwards(self) -> Tensor:
        """(N,) forward passes so far, every draw counted."""
        return self._mine(self._ledger.forwards)

    @property
    def backwards(self) -> Tensor:
        """(N,) backward passes so far."""
        return self._mine(self._ledger.backwards)

    @property
    def blind(self) -> Tensor:
        """(N,) bool: gradients were asked for, and each was zero all over, or not finite."""
        return self._mine((self._ledger.backwards > 0) & ~self._ledger.guided)

    @property
    def done(self) -> Tensor:
        """(N,) bool: broken, or out of budget. No search draw breaks a random model."""
        done = self.broken
        if self._ledger.budget is not None:
            done = done | (self.forwards + self.eot > self._ledger.budget)
        return done

    @property
    def notes(self) -> dict[str, Tensor]:
        """{name: (N,)} of what was noted so far."""
        return {name: self._mine(values) for name, values in self._ledger.notes.items()}

    def note(self, name: str, values: Tensor) -> None:
        """Keep a figure per sample, (N,), for the row; NaN: nothing to say."""
        notes = self._ledger.notes
        if name not in notes:
            notes[name] = torch.full_like(self._ledger.score, torch.nan)
        notes[name][slice(None) if self._rows is None else self._rows] = values.to(notes[name])

    def best(self, x_adv: Tensor) -> Tensor:
        """What was remembered, where there is something to remember; x_adv elsewhere."""
        return torch.where(self.remembered.view(-1, 1, 1, 1), self._mine(self._ledger.x_adv), x_adv)
