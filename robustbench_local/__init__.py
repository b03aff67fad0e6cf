"""Measuring how robust image classifiers are, against adversaries and against noise."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_local.attack import Attack, IterativeAttack
    from robustbench_local.data import load_data
    from robustbench_local.defense import Defended, Defense, Deployed, Preprocess, Recipe
    from robustbench_local.draws import Draws
    from robustbench_local.errors import RobustBenchError
    from robustbench_local.evaluate import evaluate
    from robustbench_local.grid import run_grid
    from robustbench_local.judge import Judge, Verdict
    from robustbench_local.models import load_model
    from robustbench_local.models.architectures import normalised
    from robustbench_local.oracle import Access, Oracle
    from robustbench_local.threat import Norm, ThreatModel

__version__ = "0.1.0"
__all__ = [
    "Access", "Attack", "Defended", "Defense", "Deployed", "Draws", "IterativeAttack", "Judge", "Norm", "Oracle",
    "Preprocess", "Recipe", "RobustBenchError", "ThreatModel", "Verdict", "evaluate", "load_data", "load_model",
    "normalised", "run_grid",
]  # fmt: skip

_PLACES = {
    "attack": ("Attack", "IterativeAttack",),
    "data": ("load_data",),
    "defense": ("Defended", "Defense", "Deployed", "Preprocess", "Recipe",),
    "draws": ("Draws",),
    "errors": ("RobustBenchError",),
    "evaluate": ("evaluate",),
    "grid": ("run_grid",),
    "judge": ("Judge", "Verdict",),
    "models": ("load_model",),
    "models.architectures": ("normalised",),
    "oracle": ("Access", "Oracle",),
    "threat": ("Norm", "ThreatModel",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


class _Face(ModuleType):
    """Loads a name when it is first asked for: what needs no torch, such as the command line's first second, waits for
    none. A module of the same name as a function (evaluate) does not take its place.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_MODULES})


sys.modules[__name__].__class__ = _Face
