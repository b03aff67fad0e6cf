"""What a verdict's bits, scores and distances amount to, as pure functions of arrays."""

from robustbench_local.metrics.rates import wilson
from robustbench_local.metrics.results import per_class, summarise

__all__ = ["per_class", "summarise", "wilson"]
