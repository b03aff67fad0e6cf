"""Chosen slopes: never below CROWN, never above the exact margin, and what is certified stays certified."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.bounds import alpha, cascade
from robustbench_local.bounds.alpha import raised, retightened
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.crown import Lines, lower, price, tightened
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.reading import read
from robustbench_local.bounds.step import Box
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import ThreatModel
from tests.helpers.exact_margins import Residual, exact_margin

ALLOWED = 1e-5  # by which HiGHS may be off
CASES = [(name, f"linf:{eps}") for name in ("dense", "residual", "maximum") for eps in (0.15, 0.3)]
CASES.append(("dense", "l1:1.5"))


def _network(name: str) -> nn.Sequential:
    """For images (1, 4, 4) and three classes."""
    with seeded(11):
        body = Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1)))
        layers: dict[str, list[nn.Module]] = {
            "dense": [nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)],
            "residual": [nn.Conv2d(1, 2, 2, 2), nn.ReLU(), body, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)],
            "maximum": [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 6), nn.ReLU()],
        }
        layers["maximum"].append(nn.Linear(6, 3))
        return nn.Sequential(*layers[name]).eval()


def _images(net: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return x, net(x).argmax(1)


def _bounds(name: str, threat: str) -> dict[str, Tensor]:
    """(N, K) bounds of the differences to the own logit: of CROWN, of chosen slopes, of these with inner ones too."""
    net = _network(name)
    x, y = _images(net)
    with torch.no_grad():
        network, ball = read(net, x), Ball.around(x, ThreatModel.parse(threat))
        own = torch.eye(3, dtype=torch.float64)
        rows, end = own[y].unsqueeze(1) - own, len(network.steps)
        boxes = tightened(network, ball)
        closer = retightened(network, ball, boxes)
        return {
            "crown": lower(network, boxes, ball, end, rows),
            "outer": raised(network, boxes, ball, end, rows, enough=torch.inf),
            "inner": raised(network, closer, ball, end, rows, enough=torch.inf),
        }


def _exact(name: str, threat: str) -> Tensor:
    net = _network(name)
    x, y = _images(net)
    found = [exact_margin(net, one, int(label), ThreatModel.parse(threat)) for one, label in zip(x, y, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


def _least(bounds: Tensor) -> Tensor:
    """Over the classes other than the own, whose difference is nought but for rounding."""
    return bounds.masked_fill(bounds.abs() < 1e-9, torch.inf).amin(1)


@pytest.mark.parametrize(("name", "threat"), CASES)
def test_chosen_slopes_lie_between_crown_and_the_exact_margin(name: str, threat: str) -> None:
    found, true = _bounds(name, threat), _exact(name, threat)
    outer, inner = _least(found["outer"]), _least(found["inner"])
    assert bool((found["crown"] <= found["outer"]).all())
    assert bool((outer <= true + ALLOWED).all()) and bool((inner <= true + ALLOWED).all())
    assert float((true - inner).sum()) <= float((true - outer).sum()) + ALLOWED


def test_chosen_slopes_close_a_good_part_of_the_gap() -> None:
    gaps = dict.fromkeys(("crown", "outer", "inner"), 0.0)
    for name, threat in CASES:
        found, true = _bounds(name, threat), _exact(name, threat)
        for kind in gaps:
            gaps[kind] += float((true - _least(found[kind])).sum())
    assert gaps["outer"] < 0.95 * gaps["crown"] and gaps["inner"] < 0.95 * gaps["outer"], gaps


def test_slopes_out_of_range_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(slopes: Mapping[int, Tensor], prices: Mapping[int, Tensor]) -> Lines:
        return Lines({place: 3 * each - 1 for place, each in slopes.items()})

    monkeypatch.setattr(alpha, "Lines", wide)
    assert any(bool((_least(_bounds(*case)["outer"]) > _exact(*case) + ALLOWED).any()) for case in CASES)


@pytest.mark.parametrize("threat", ["linf:0.01", "linf:0.1", "linf:0.3", "l2:0.4", "l1:0.8"])
@pytest.mark.parametrize("name", ["dense", "residual", "maximum"])
def test_the_cascade_certifies_what_its_cheaper_stages_do(name: str, threat: str) -> None:
    net = _network(name)
    x, y = _images(net)
    ibp, crown, found = (certify(net, x, y, threat, method=method) for method in ("ibp", "crown", "alpha_crown"))
    assert bool((found.certified | ~crown.certified & ~ibp.certified).all())
    assert bool((found.margins >= crown.margins)[~crown.certified].all())


def test_what_is_certified_is_not_given_to_the_next_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _network("maximum")
    x, y = _images(net)
    given: list[tuple[str, int]] = []

    def watched(name: str, stage: cascade.Stage) -> cascade.Stage:
        def run(network, ball, boxes, rows):  # type: ignore[no-untyped-def]
            given.append((name, len(rows)))
            return stage(network, ball, boxes, rows)

        return run

    names = ("ibp", "crown", "outer", "inner")
    stages = tuple(watched(*pair) for pair in zip(names, cascade.STAGES["alpha_crown"], strict=True))
    monkeypatch.setitem(cascade.STAGES, "alpha_crown", stages)
    open_to = {
        method: int((certify(net, x, y, "linf:0.01", method=method).margins <= 0).sum()) for method in ("ibp", "crown")
    }
    assert 0 < open_to["crown"] < open_to["ibp"]
    given.clear()
    certify(net, x, y, "linf:0.01", method="alpha_crown")
    assert (
        dict(given)["ibp"] == 3 and dict(given)["crown"] == open_to["ibp"] and dict(given)["outer"] == open_to["crown"]
    )


@pytest.mark.parametrize("dear", [False, True])
def test_inner_slopes_are_left_out_where_they_are_too_dear(dear: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def watched(network: Network, ball: Ball, boxes: list[Box]) -> list[Box]:
        calls.append(len(ball.x))
        return retightened(network, ball, boxes)

    monkeypatch.setattr(cascade, "retightened", watched)
    if dear:
        monkeypatch.setattr(cascade, "AFFORDABLE", 0)
    net = _network("maximum")
    x, y = _images(net)
    found = certify(net, x, y, "linf:0.3", method="alpha_crown").margins
    assert calls == ([] if dear else [3])
    assert bool((found >= certify(net, x, y, "linf:0.3").margins).all())


def test_the_price_is_counted_in_coefficients() -> None:
    with seeded(2):
        first = [nn.Flatten(), nn.Linear(12, 4), nn.ReLU()]
        net = nn.Sequential(*first, nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        x = torch.full((1, 3, 2, 2), 0.5)
        network, ball = read(net, x), Ball.around(x, ThreatModel.parse("linf:0.4"))
        boxes = network.intervals(ball)
        box = next(box for box in boxes if box.low.shape[1:] == (5,))
        wanted = int(((box.low < 0) & (box.high > 0)).sum())
        assert wanted > 0 and price(network, ball, boxes) == 2 * wanted * (5 + 4 + 4 + 12 + 12)
