"""Bounds against exact answers, against what sampling finds, and with every relaxation broken in turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.bounds import affine
from robustbench_local.bounds.affine import Add, AveragePool, Matrix, Scale
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.crown import lower, tightened
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.reading import read
from robustbench_local.bounds.relu import ReLU
from robustbench_local.bounds.step import Box, Linear, Step
from robustbench_local.core.bound_methods import METHODS, Method
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import BoundsError
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.models.architectures import Normalise
from tests.helpers.exact_margins import Residual, exact_margin

# exact answers take a second or less; L1 is harder for HiGHS than L-infinity
CASES = [
    (name, f"linf:{eps}")
    for name in ("dense", "conv", "average", "maximum", "batch norm", "residual")
    for eps in (0.1, 0.2)
]
CASES += [("maximum of signs", "linf:0.04"), ("dense", "l1:0.6"), ("batch norm", "l1:0.6")]
ALLOWED = 1e-5  # by which HiGHS may be off


def _filled(net: nn.Sequential) -> nn.Sequential:
    """With batch norms that do something."""
    ranges = {"weight": (-1.5, 1.5), "bias": (-0.5, 0.5), "running_mean": (-0.3, 0.3), "running_var": (0.3, 2.0)}
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for name, (low, high) in ranges.items():
                nn.init.uniform_(getattr(layer, name), low, high)
    return net.eval()


def networks() -> dict[str, nn.Sequential]:
    """For images (1, 4, 4) and three classes."""

    def head(values: int) -> list[nn.Module]:
        return [nn.Flatten(), nn.Linear(values, 6), nn.ReLU(), nn.Linear(6, 3)]

    with seeded(3):
        nets = {
            "dense": nn.Sequential(
                nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
            ),
            "conv": nn.Sequential(
                Normalise([0.4], [0.3]), nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), *head(8)
            ),
            "average": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), *head(8)),
            "maximum": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *head(8)),
            "maximum of signs": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 1), nn.ReLU(), *head(8)),
            "batch norm": nn.Sequential(
                nn.Conv2d(1, 2, 2, 2),
                nn.BatchNorm2d(2),
                nn.ReLU(),
                nn.Conv2d(2, 2, 1),
                nn.BatchNorm2d(2),
                nn.ReLU(),
                *head(8),
            ),
            "residual": nn.Sequential(
                nn.Conv2d(1, 2, 2, 2),
                Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1))),
                nn.ReLU(),
                *head(8),
            ),
        }
        return {name: _filled(net) for name, net in nets.items()}


def images(net: nn.Module, count: int = 3) -> tuple[Tensor, Tensor]:
    """And the classes that the network names. Some pixels are at the edge of the box."""
    x = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5)).round(decimals=1)
    return x, net(x).argmax(1)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return layer


@functools.cache
def exact(name: str, threat: str) -> Tensor:
    """(N,) float64 least margins."""
    net = networks()[name]
    x, y = images(net)
    found = [exact_margin(net, one, int(label), ThreatModel.parse(threat)) for one, label in zip(x, y, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


def bound(name: str, threat: str, method: Method = "crown") -> Tensor:
    net = networks()[name]
    return certify(net, *images(net), threat, method=method, seconds=0.1).margins


def too_high(cases: Iterable[tuple[str, str]]) -> bool:
    """Whether any bound lies above the exact margin, or the reading says that it is wrong."""
    try:
        return any(bool((bound(*case) > exact(*case) + ALLOWED).any()) for case in cases)
    except BoundsError:
        return True


@pytest.mark.parametrize(("name", "threat"), CASES)
def test_crown_lies_between_intervals_and_the_exact_margin(name: str, threat: str) -> None:
    intervals, crown, true = bound(name, threat, "ibp"), bound(name, threat), exact(name, threat)
    assert bool((intervals <= crown).all()) and bool((crown <= true + ALLOWED).all())
    assert float((true - crown).sum()) < 0.5 * float((true - intervals).sum())  # it closes half of the gap, or more


@pytest.mark.parametrize("threat", ["linf:0.1", "l1:0.6", "l2:0.3", "none"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", networks())
def test_no_image_of_the_ball_falls_below_the_bound(name: str, method: Method, threat: str) -> None:
    net, ball = networks()[name], ThreatModel.parse(threat)
    x, y = images(net)
    margins = bound(name, threat, method)
    for seed in range(20):
        draws = Draws(seed, torch.arange(len(x)))
        near = ball.start(x, draws)
        far = ball.project(x + 10 * draws.stream("far").normal(*x.shape[1:]), x)
        for x_adv in (x, near, far):
            logits = net(x_adv)
            others = logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
            assert bool((logits.gather(1, y.unsqueeze(1))[:, 0] - others >= margins).all())


@pytest.mark.parametrize(
    ("method", "threat", "fall"),
    [
        ("ibp", "linf:0.1", lambda w: 0.1 * w.abs().sum(1)),
        ("crown", "linf:0.1", lambda w: 0.1 * w.abs().sum(1)),
        ("crown", "l2:0.1", lambda w: 0.1 * w.norm(dim=1)),
        ("crown", "l1:0.1", lambda w: 0.1 * w.abs().amax(1)),
    ],
)
def test_of_a_linear_network_the_bound_is_the_dual_norm(
    method: Literal["ibp", "crown"], threat: str, fall: Callable[[Tensor], Tensor]
) -> None:
    with seeded(1):
        last = nn.Linear(16, 2)
    net, weight = nn.Sequential(nn.Flatten(), last), last.weight.detach()
    x = torch.full((1, 1, 4, 4), 0.5)  # far from the edges of the box
    logits = net(x).detach()
    expected = logits[:, 0] - logits[:, 1] - fall(weight[:1] - weight[1:])
    found = certify(net, x, torch.tensor([0]), threat, method=method).margins
    assert float(found) == pytest.approx(float(expected), abs=3e-5) and bool(found <= expected + 1e-6)


def test_pixels_stay_in_their_range() -> None:
    net = nn.Sequential(nn.Flatten(), linear(torch.stack([torch.ones(16), torch.zeros(16)]), torch.zeros(2)))
    for threat in ("linf:0.3", "l1:4", "l2:3", "none"):  # of a black image no pixel can go down
        found = certify(net, torch.zeros(1, 1, 4, 4), torch.tensor([0]), threat).margins
        assert float(found) == pytest.approx(0, abs=1e-4), threat


def _flat(self: ReLU, above: Tensor, *inputs: Box) -> Linear:
    """The chord half as steep."""
    found = RELU(self, above, *inputs)
    (inner,) = inputs
    crosses = ((inner.low < 0) & (inner.high > 0)).unsqueeze(1)
    return Linear(
        (torch.where(crosses & (above < 0), found.coefficients[0] / 2, found.coefficients[0]),), found.constant
    )


def _constant(original: Callable[..., Linear], times: float) -> Callable[..., Linear]:
    """The constant counted so many times."""

    def backward(self: Step, above: Tensor, *inputs: Box) -> Linear:
        found = original(self, above, *inputs)
        return Linear(found.coefficients, times * found.constant)

    return backward


def _without_shortcut(self: Add, above: Tensor, *inputs: Box) -> Linear:
    """Of a residual connection what is around it alone."""
    return Linear((torch.zeros_like(above), above), ADD(self, above, *inputs).constant)


def _closer(self: Ball, coefficients: Tensor) -> Tensor:
    """Of a ball of 0.8 eps."""
    return MINIMUM(dataclasses.replace(self, eps=0.8 * self.eps), coefficients)


RELU, ADD, MINIMUM = ReLU.backward, Add.backward, Ball.minimum
MAX_WINDOWS, AVERAGE, STEEPEST = MaxPool._windows, AveragePool.transpose, Ball._steepest
NEEDED = {  # which networks tell
    "chord": ("dense", "conv"),
    "offset of the chord": ("dense", "conv"),
    "stable pool": ("maximum", "maximum of signs"),
    "constant of the pool": ("maximum", "maximum of signs"),
    "average": ("average",),
    "shortcut": ("residual",),
    "scale": ("batch norm",),
    "shift": ("batch norm",),
    "bias": ("dense",),
    "ball": ("dense",),
    "steepest": ("dense", "batch norm"),
}


@pytest.mark.parametrize("broken", NEEDED)
def test_a_broken_relaxation_is_found(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case[0] in NEEDED[broken]]
    assert not too_high(cases)
    match broken:
        case "chord":
            monkeypatch.setattr(ReLU, "backward", _flat)
        case "offset of the chord":
            monkeypatch.setattr(ReLU, "backward", _constant(RELU, 0))
        case "stable pool":
            monkeypatch.setattr(MaxPool, "_windows", lambda self, x: MAX_WINDOWS(self, x) - 1e3)
        case "constant of the pool":
            monkeypatch.setattr(MaxPool, "backward", _constant(MaxPool.backward, 0))
        case "average":
            monkeypatch.setattr(AveragePool, "transpose", lambda self, above: AVERAGE(self, above) / 2)
        case "shortcut":
            monkeypatch.setattr(Add, "backward", _without_shortcut)
        case "scale":
            monkeypatch.setattr(Scale, "transpose", lambda self, above: above)
        case "shift":
            monkeypatch.setattr(Scale, "backward", _constant(Scale.backward, 2))
        case "bias":
            monkeypatch.setattr(Matrix, "backward", _constant(Matrix.backward, 2))
        case "ball":
            monkeypatch.setattr(Ball, "minimum", _closer)
        case _:
            monkeypatch.setattr(Ball, "_steepest", lambda self, rows: STEEPEST(self, rows) / 2)
    assert too_high(cases)


def test_l2_is_not_taken_for_a_smaller_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    def falls() -> bool:
        weight = torch.stack([torch.linspace(-1, 1, 16), torch.zeros(16)])
        net = nn.Sequential(nn.Flatten(), linear(weight, torch.zeros(2)))
        x = torch.full((1, 1, 4, 4), 0.5)
        x_adv = x - 0.3 * (weight[0] / weight[0].norm()).view(1, 1, 4, 4)
        logits = net(x_adv)
        return bool(logits[0, 0] - logits[0, 1] < certify(net, x, torch.tensor([0]), "l2:0.3").margins[0])

    assert not falls()
    monkeypatch.setattr(Ball, "minimum", _closer)
    assert falls()


def test_the_rounding_of_float32_is_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]])
    net = nn.Sequential(nn.Flatten(), linear(first, torch.tensor([1e7])), linear(second, torch.tensor([-1e7, 0.4])))
    network = read(net, torch.ones(1, 1, 1, 1))
    ball = Ball.around(torch.full((1, 1, 1, 1), 0.5), ThreatModel(Norm.LINF, 0.05))

    def margin() -> float:
        rows = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
        return float(lower(network, tightened(network, ball), ball, len(network.steps), rows))

    one, other = net(torch.full((1, 1, 1, 1), 0.46))[0].tolist()
    assert one < other  # in float32, where 1e7 + 0.46 is 1e7; in exact arithmetic it is the other way round
    assert margin() < 0
    monkeypatch.setattr(affine, "gamma", lambda terms: 0.0)
    assert margin() > 0


def test_what_may_leave_the_range_of_float32_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    last = linear(torch.tensor([[2e19], [1.9e19]]), torch.zeros(2))
    net = nn.Sequential(nn.Flatten(), linear(torch.tensor([[1e20]]), torch.zeros(1)), last)
    x, y = torch.full((1, 1, 1, 1), 0.12), torch.tensor([0])
    assert bool(net(x + 0.07).isinf().all())  # both logits, of which the first is larger in exact arithmetic
    assert not bool(certify(net, x, y, "linf:0.07").certified)
    monkeypatch.setattr("robustbench_local.bounds.cascade.LARGEST", float("inf"))
    assert bool(certify(net, x, y, "linf:0.07").certified)
