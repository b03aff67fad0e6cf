"""Measuring how robust image classifiers are, against adversaries and against noise."""

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
