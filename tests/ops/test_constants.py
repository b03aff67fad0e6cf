"""Constants that are made once: which are the same, which are not, and where they may be used."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.ops.constants import constant

MADE: list[tuple[float, ...]] = []


def line(*values: float) -> Tensor:
    MADE.append(values)
    return torch.tensor(values, dtype=torch.float64)


def test_each_is_made_once_for_each_dtype() -> None:
    MADE.clear()
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    first = constant(single, line, 0.1, 3.0)
    assert constant(single, line, 0.1, 3.0) is first and first.dtype == torch.float32
    assert constant(double, line, 0.1, 3.0).dtype == torch.float64 and constant(single, line, 0.1, 4.0) is not first
    assert MADE == [(0.1, 3.0), (0.1, 3.0), (0.1, 4.0)]


def test_one_that_was_made_in_inference_mode_meets_gradients() -> None:
    with torch.inference_mode():
        constant(torch.zeros(1), line, 5.0)
    x = torch.ones(1, requires_grad=True)
    (x * constant(x, line, 5.0)).sum().backward()
    assert x.grad is not None and x.grad.item() == 5
