"""Every error this package raises on purpose, so that a user can catch one family and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobustBenchError(Exception):
    """Base class. The message names the value, the allowed range and the likely cause."""


class DataError(RobustBenchError):
    """Images, labels, data sets and where they come from."""


class ConfigError(RobustBenchError):
    """A grid, a setting or an override that means nothing."""


class ModelError(RobustBenchError):
    """A model that cannot be built, loaded or trusted with these images."""


class ThreatError(RobustBenchError):
    """A norm or an eps outside what is allowed."""


class AccessError(RobustBenchError):
    """An attack asked its oracle for more than it was granted."""


class PluginError(RobustBenchError):
    """An attack or a defense that cannot be found or imported."""


class ContractError(RobustBenchError):
    """A plug-in that breaks rules which check_attack or check_defense hold it to."""


class BoundsError(RobustBenchError):
    """A model or a threat model that no lower bound is known of."""


class ContradictionError(RobustBenchError):
    """An attack broke what a certificate says that none can: one of the two is wrong."""


class StoreError(RobustBenchError):
    """Rows that cannot be written or read back."""


def said(error: BaseException) -> str:
    """What an error says; of a stranger's, asking may be an error too."""
    try:
        return str(error)
    except Exception as second:
        return f"(no message: asked for one, it raised {type(second).__name__})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' (did you mean "pgd"?)' for the nearest known name, or '' where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""
