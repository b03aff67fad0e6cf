"""Checks for authors of plug-ins: does my attack, or my defense, keep the rules that every verdict relies on?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_local.testing.checks import check_attack, check_defense

__all__ = ["check_attack", "check_defense"]


def __getattr__(name: str) -> Any:
    """Loaded when first asked for, as all public names are."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.checks"), name)
