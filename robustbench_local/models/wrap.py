"""Any callable as a model: a function on NumPy arrays or tensors, whatever is behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Count
from robustbench_local.core.access import Access
from robustbench_local.core.errors import ModelError
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.classifier import Classifier
from robustbench_local.models.description import described


@checked(ModelError)
def wrap(
    f: Callable[..., Any],
    *,
    access: Literal["scores", "labels"] = "scores",
    classes: Count | list[str] | None = None,
    batch: Count | None = None,
    **about: Any,
) -> nn.Module:
    """A model of a function on NumPy arrays: evaluate, audit and grids take it as any other.

    f: float32 (n, C, H, W) in [0, 1] -> scores (n, K), or with access="labels" the classes (n,). It never sees a
    tensor, and at most `batch` images at once. about: what else a model.yaml may say (layout="NHWC", expects="0-255",
    outputs="probabilities"; see Description). Attacks get no gradients of it. ModelError where f cannot be called, or
    its answers are no such arrays.
    """
    description = described({"access": access, "classes": classes} | about, "what wrap was told")
    what = getattr(f, "__qualname__", type(f).__name__)
    box = BlackBox(f, what=what, access=Access[access.upper()], classes=description.class_count, batch=batch)
    return Classifier(box, description).eval()
