"""Published weights, which a package fetches for a name: whether that may be done now."""

from __future__ import annotations

from pathlib import Path

import torch

from robustbench_local.core.downloads import downloads_allowed
from robustbench_local.core.errors import ModelError


def in_hub(url: str) -> bool:
    """Whether torch.hub has fetched that file before."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file()


def check_may_fetch(spec: str, there: bool) -> None:
    """ModelError where weights are not there and nothing may be fetched."""
    if not there and not downloads_allowed():
        raise ModelError(
            f'the published weights of "{spec}" are not on this machine, and a dry run downloads nothing: fetch them by'
            f' a run, or by robustbench_local.load_model("{spec}"); weights=random will do to see what it takes'
        )
