"""Measuring how robust image classifiers are, against adversaries and against noise."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_local import attacks, regression, testing
    from robustbench_local.audit.checklist import audit_model
    from robustbench_local.bounds.certify import Certificate, certify
    from robustbench_local.core.access import Access
    from robustbench_local.core.attack import Attack, IterativeAttack
    from robustbench_local.core.corruption import Corruption
    from robustbench_local.core.defense import Defended, Defense, Deployed, Preprocess
    from robustbench_local.core.draws import Draws
    from robustbench_local.core.errors import RobustBenchError
    from robustbench_local.core.oracle import Oracle
    from robustbench_local.core.threat import Norm, ThreatModel
    from robustbench_local.core.training import Recipe, Trainer
    from robustbench_local.core.verdict import Verdict
    from robustbench_local.data.load import load_data
    from robustbench_local.evaluation.judge import Judge
    from robustbench_local.evaluation.verdicts import Verdicts, load_verdict
    from robustbench_local.gallery.randomisation import parameter_randomisation
    from robustbench_local.gallery.saliency import saliency
    from robustbench_local.grids.evaluate import benchmark, evaluate
    from robustbench_local.grids.run import run_grid
    from robustbench_local.models.architectures import normalised
    from robustbench_local.models.load import load_model
    from robustbench_local.models.variants import make_variant
    from robustbench_local.models.wrap import wrap
    from robustbench_local.report.results import Results, load_results

__version__ = "0.2.0"
__all__ = [
    "Access",
    "Attack",
    "Certificate",
    "Corruption",
    "Defended",
    "Defense",
    "Deployed",
    "Draws",
    "IterativeAttack",
    "Judge",
    "Norm",
    "Oracle",
    "Preprocess",
    "Recipe",
    "Results",
    "RobustBenchError",
    "ThreatModel",
    "Trainer",
    "Verdict",
    "Verdicts",
    "attacks",
    "audit_model",
    "benchmark",
    "certify",
    "evaluate",
    "load_data",
    "load_model",
    "load_results",
    "load_verdict",
    "make_variant",
    "normalised",
    "parameter_randomisation",
    "regression",
    "run_grid",
    "saliency",
    "testing",
    "wrap",
]

_PLACES = {
    "audit.checklist": ("audit_model",),
    "bounds.certify": ("Certificate", "certify"),
    "core.access": ("Access",),
    "core.attack": ("Attack", "IterativeAttack"),
    "core.corruption": ("Corruption",),
    "core.defense": ("Defended", "Defense", "Deployed", "Preprocess"),
    "core.draws": ("Draws",),
    "core.errors": ("RobustBenchError",),
    "core.oracle": ("Oracle",),
    "core.threat": ("Norm", "ThreatModel"),
    "core.training": ("Recipe", "Trainer"),
    "core.verdict": ("Verdict",),
    "data.load": ("load_data",),
    "evaluation.judge": ("Judge",),
    "gallery.randomisation": ("parameter_randomisation",),
    "gallery.saliency": ("saliency",),
    "evaluation.verdicts": ("Verdicts", "load_verdict"),
    "grids.evaluate": ("benchmark", "evaluate"),
    "grids.run": ("run_grid",),
    "models.architectures": ("normalised",),
    "models.load": ("load_model",),
    "models.variants": ("make_variant",),
    "models.wrap": ("wrap",),
    "report.results": ("Results", "load_results"),
}
_ROOMS = ("attacks", "regression", "testing")  # whose names are asked for through it
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name is loaded when it is first asked for (PEP 562): importing the package waits for no torch."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_ROOMS})
