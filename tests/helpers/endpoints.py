"""Models on the tests' server, opened so that nobody waits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.models.http.endpoint import Endpoint
from robustbench_local.models.load import load_model
from tests.helpers.model_server import Served

QUICK = {"longest_wait": 0.01, "batch": 4, "timeout": 5}


def images(n: int = 10, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def opened(served: Served, labels: bool = False, about: dict[str, Any] | None = None, **settings: Any) -> nn.Module:
    """The model of a server, with settings of its endpoint, and what else is said about it."""
    said = ({"classes": 10} if labels else {}) | (about or {})
    return load_model(served.address(labels), about={**said, "endpoint": QUICK | settings})


def endpoint(model: nn.Module) -> Endpoint:
    """The part of a model that asks."""
    (found,) = [part for part in model.modules() if isinstance(part, Endpoint)]
    return found
