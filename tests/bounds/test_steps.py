"""Each step alone: its lines hold for every point of a box, and touch; a line that is tilted is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.bounds import s_shaped
from robustbench_local.bounds.affine import Concat, Pad
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.s_shaped import SShaped
from robustbench_local.bounds.step import Box, Step, product

SHAPE = (2, 5, 6)
STEPS: dict[str, tuple[Step, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (SShaped(torch.sigmoid), torch.sigmoid),
    "tanh": (SShaped(torch.tanh), torch.tanh),
    "zeros": (Pad((1, 0, 2, 1)), lambda x: F.pad(x, (1, 0, 2, 1))),
    "cut": (Pad((-1, 0, 0, -2)), lambda x: x[..., :-2, 1:]),
    "over the edge": (
        MaxPool(SHAPE, (2, 3), (2, 2), (1, 1), ceil=True),
        lambda x: F.max_pool2d(x, (2, 3), (2, 2), (1, 1), ceil_mode=True),
    ),
    "in the edge": (MaxPool(SHAPE, (2, 2), (3, 3), (0, 0)), lambda x: F.max_pool2d(x, 2, 3)),
}


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _boxes() -> Box:
    """Boxes of all widths, on either side of zero and around it."""
    middle, radius = 2 * _drawn(8, *SHAPE, seed=1), _drawn(8, *SHAPE, seed=2).abs() ** 3
    return Box(middle - radius, middle + radius)


def _holds(step: Step, computes: Callable[[Tensor], Tensor]) -> bool:
    """Of intervals and of lines, at corners and inside; in float32, as a network computes."""
    box = _boxes()
    outer = computes(box.low)
    own = torch.eye(outer[0].numel(), dtype=torch.float64)
    above = torch.cat([own, -own, _drawn(4, len(own), seed=3)]).view(1, -1, *outer.shape[1:])
    found = step.backward(above, box)
    interval = step.interval(box)
    for seed in range(30):
        share = torch.rand(box.low.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x = torch.lerp(box.low, box.high, share if seed % 2 else share.round())
        made = computes(x.float()).double()
        if bool((made < interval.low - 1e-5).any() or (made > interval.high + 1e-5).any()):
            return False
        line = (found.coefficients[0] * x.unsqueeze(1)).flatten(2).sum(2) + found.constant
        if bool((line > product(above, made) + 1e-4).any()):
            return False
    return True


@pytest.mark.parametrize("name", STEPS)
def test_lines_hold(name: str) -> None:
    assert _holds(*STEPS[name])


@pytest.mark.parametrize("name", STEPS)
def test_lines_touch_where_the_box_is_a_point(name: str) -> None:
    step, computes = STEPS[name]
    x = _drawn(3, *SHAPE, seed=4)
    made = computes(x)
    above = _drawn(1, 2, *made.shape[1:], seed=5)
    found = step.backward(above, Box(x, x))
    line = (found.coefficients[0] * x.unsqueeze(1)).flatten(2).sum(2) + found.constant
    assert torch.allclose(line, product(above, made), atol=1e-3)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_line_too_steep_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, computes = STEPS[name]
    assert isinstance(step, SShaped)
    slope = s_shaped._SLOPES[step.shape]
    monkeypatch.setitem(s_shaped._SLOPES, step.shape, lambda value: 1.5 * slope(value))
    assert not _holds(step, computes)


def test_a_window_too_few_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = MaxPool._windows
    monkeypatch.setattr(MaxPool, "_windows", lambda self, x: windows(self, x) - 1e3)
    assert not _holds(*STEPS["over the edge"])


def test_parts_are_kept_in_their_order() -> None:
    first, second, step = _drawn(2, 3, 2, seed=1), _drawn(2, 1, 2, seed=2), Concat((3, 1))
    assert torch.equal(step.interval(Box(first, first), Box(second, second)).low, torch.cat([first, second], 1))
    above = _drawn(1, 4, 4, 2, seed=3)
    found = step.backward(above, Box(first, first), Box(second, second))
    both = sum(product(c, x) for c, x in zip(found.coefficients, (first, second), strict=True))
    assert torch.allclose(torch.as_tensor(both), product(above, torch.cat([first, second], 1)))
