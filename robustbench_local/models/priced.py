"""Models of which every answer is paid for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Priced(Protocol):
    """A part of a model that says what asking it costs, so that an estimate asks it nothing.

    classes: K of its answers. seconds: per image, at least.
    """

    classes: int | None
    seconds: float

    def price_of(self, queries: int) -> str:
        """What so many images cost, in words."""
        ...


def priced(model: nn.Module) -> Priced | None:
    """The part of a model that has a price; None where it is asked for nothing."""
    return next((part for part in model.modules() if isinstance(part, Priced)), None)
