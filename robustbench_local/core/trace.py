"""How far a search had come after so many steps: the best objective of each image, kept as notes of the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustbench_local.core.oracle import Oracle

POINTS = 24  # of one search, at most
_NAME = "objective after "


class Trace:
    """Of an attack whose state holds `best_loss` (N,), the best value so far of what it climbs.

    Only the first round of a row is traced: others, and later members of a suite, may climb something else. An image
    that retired keeps its last value.
    """

    def __init__(self, oracle: Oracle, calls: range) -> None:
        """calls: the step at which each call of the attack's `step` begins; its stop is their number."""
        points = min(POINTS, len(calls))
        chosen = [calls[(len(calls) - 1) * k // (points - 1)] for k in range(points)] if points > 1 else []
        self._at = {i: place for place, i in enumerate(chosen)}
        self._after = [min(i + calls.step, calls.stop) for i in chosen]
        self._oracle = oracle
        self._values: Tensor | None = None

    def keep(self, i: int, rows: Tensor, state: Mapping[str, Tensor]) -> None:
        """After the step that began at i, of these rows (indices)."""
        if i not in self._at or "best_loss" not in state:
            return
        best = state["best_loss"]
        if self._values is None:
            self._values = best.new_full((len(self._oracle), len(self._at)), torch.nan)
        self._values[rows, self._at[i] :] = best[:, None]

    def note(self) -> None:
        """Hand it to the oracle, unless a search before this one did."""
        if self._values is None or of(self._oracle.notes):
            return
        for after, values in zip(self._after, self._values.unbind(1), strict=True):
            self._oracle.note(f"{_NAME}{after}", values)


def of(notes: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """{steps: best objective (N,) after them}, in order."""
    found = {int(name.removeprefix(_NAME)): values for name, values in notes.items() if name.startswith(_NAME)}
    return dict(sorted(found.items()))


def others(notes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The notes that are no part of a trace."""
    return {name: values for name, values in notes.items() if not name.startswith(_NAME)}
