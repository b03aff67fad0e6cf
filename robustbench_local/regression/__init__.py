"""Robustness regression: is this model less robust than the last one? check and compare."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_local.regression.outcome import Outcome
    from robustbench_local.regression.session import Session, check, compare

__all__ = ["Outcome", "Session", "check", "compare"]

_PLACES = {"Outcome": "outcome", "Session": "session", "check": "session", "compare": "session"}


def __getattr__(name: str) -> Any:
    """Loaded when first asked for: pytest imports this room at every start, with tests of robustness or without."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
