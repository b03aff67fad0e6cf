"""Branch and bound: exact in the end, never above the exact margin, with signs and multipliers broken in turn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.bounds import branching
from robustbench_local.bounds.alpha import raised
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.branching import Parts, branched
from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.crown import lower, tightened
from robustbench_local.bounds.reading import read
from robustbench_local.bounds.relu import ReLU
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import ThreatModel
from tests.helpers.exact_margins import exact_margin

ALLOWED = 1e-5  # by which HiGHS may be off
EPS = 0.25


def small() -> nn.Sequential:
    """For images (1, 4, 4) and three classes; of small biases, so that many signs are unknown."""
    with seeded(4):
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=1.5 / layer.in_features**0.5)
        return net.eval()


def images(count: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return x, small()(x).argmax(1)


def exact(x: Tensor, y: Tensor) -> Tensor:
    threat = ThreatModel.parse(f"linf:{EPS}")
    found = [exact_margin(small(), one, int(label), threat) for one, label in zip(x, y, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.slow
def test_given_time_it_certifies_all_that_is_certain() -> None:
    x, y = images()
    true = exact(x, y)
    alone = certify(small(), x, y, f"linf:{EPS}", method="alpha_crown")
    found = certify(small(), x, y, f"linf:{EPS}", method="branch_and_bound", seconds=20)
    assert bool((found.margins <= true + ALLOWED).all())
    assert torch.equal(found.certified, true > 1e-3)
    assert int(found.certified.sum()) > int(alone.certified.sum())  # it had something to do


def test_without_time_it_is_as_the_stage_before() -> None:
    x, y = images()
    alone = certify(small(), x, y, f"linf:{EPS}", method="alpha_crown")
    found = certify(small(), x, y, f"linf:{EPS}", method="branch_and_bound", seconds=1e-9)
    assert torch.equal(found.certified, alone.certified)
    assert bool((found.margins >= alone.margins).all())


def _half(side: float, priced: float) -> float:
    """The bound of 2 (x + 1) - max(x - 0.5, 0) for x in [0, 1], where x - 0.5 has that sign; priced as if of another.

    Exact are 3 above, at x = 0.5, and 2 below, at x = 0.
    """
    first, last = nn.Linear(1, 2), nn.Linear(2, 2)
    first.weight.data, first.bias.data = torch.ones(2, 1), torch.tensor([-0.5, 1.0])
    last.weight.data, last.bias.data = torch.tensor([[-1.0, 2.0], [0.0, 0.0]]), torch.zeros(2)
    net, x = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last), torch.full((1, 1, 1, 1), 0.5)
    with torch.no_grad():
        network, ball = read(net, x), Ball.around(x, ThreatModel.parse("none"))
    place = next(placed.inputs[0] for placed in network.steps if isinstance(placed.step, ReLU))
    signs = torch.tensor([[side, 0.0]], dtype=torch.float64)
    boxes = branching._within(network.intervals(ball), Parts(torch.zeros(1), {place: signs}))
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    supposed = {place: signs * side * priced}
    return float(raised(network, boxes, ball, len(network.steps), row, 100, torch.inf, supposed))


def test_multipliers_reach_the_exact_margin_of_a_half() -> None:
    assert _half(1, priced=0) == pytest.approx(2.5, abs=1e-3)  # at x = 0, which is not in this half
    assert _half(1, priced=1) == pytest.approx(3, abs=0.02) and _half(1, priced=1) <= 3
    assert _half(-1, priced=-1) == pytest.approx(2, abs=1e-3) and _half(-1, priced=-1) <= 2


def test_multipliers_of_the_other_half_are_caught() -> None:
    assert _half(-1, priced=1) > 2.5  # where 2 is exact


@pytest.mark.slow
def test_a_half_left_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(*given) -> Parts | None:  # type: ignore[no-untyped-def]
        found = halves(*given)
        return None if found is None else found.of(torch.arange(len(found.bounds) // 2))

    halves = branching._halves
    monkeypatch.setattr(branching, "_halves", one)
    x, y = images()
    found = certify(small(), x, y, f"linf:{EPS}", method="branch_and_bound", seconds=20)
    assert bool((found.certified & (exact(x, y) < 0)).any())


def test_an_image_that_falls_takes_no_time() -> None:
    x, _ = images(1)
    net = small()
    worst = int(net(x).argmin(1))
    with torch.no_grad():
        network_, ball = read(net, x), Ball.around(x, ThreatModel.parse(f"linf:{EPS}"))
        boxes, own = tightened(network_, ball), torch.eye(3, dtype=torch.float64)
        rows = (own[worst] - own[torch.arange(3) != worst]).unsqueeze(0)
        bounds = lower(network_, boxes, ball, len(network_.steps), rows)
        assert bool((branched(network_, boxes, ball, rows, bounds, seconds=1e6).amin(1) <= 0).all())
