"""What a result may depend on beyond its definition."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from robustbench_local.core.device import hardware


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on beyond its definition."""
    try:
        own = version("robustbench_local")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "robustbench_local": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": hardware(device),
        "threads": torch.get_num_threads(),
    }
