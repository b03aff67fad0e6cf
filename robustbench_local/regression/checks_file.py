"""robustness.yaml: the checks of a repository, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustbench_local.config import reading
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError
from robustbench_local.regression import lock
from robustbench_local.regression.session import ALPHA


@dataclass(frozen=True)
class ChecksFile:
    """lock: the lock file, from the folder of this one. alpha: the risk that a run of unchanged models fails. common:
    settings of every check that does not say its own. checks: the settings of each, see settings.Check.
    """

    checks: list[dict[str, Any]]
    common: dict[str, Any] = field(default_factory=dict)
    lock: str = lock.NAME
    alpha: float = ALPHA


def read(path: Path) -> ChecksFile:
    """ConfigError where there is none, or where it says something else."""
    found = construct(ChecksFile, reading.read(reading.find("check", str(path)), {}), path.name)
    if not found.checks:
        raise ConfigError(f"{path} has no check: write checks: [{{model: net.pt2, data: mnist, threat: linf:0.1}}]")
    return found
