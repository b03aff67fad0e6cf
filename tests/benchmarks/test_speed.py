"""What the time of a job went into, and that both sides of a comparison do the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import _network_clock, speed
from benchmarks._network_clock import NetworkClock
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.data.load import open_data
from robustbench_local.defenses.adversarial_training import AdversarialTraining
from robustbench_local.defenses.none import Undefended

CPU = torch.device("cpu")


class Minutes:
    """A clock that goes on only where it is told to."""

    passed = 0.0

    def __call__(self, device: torch.device) -> float:
        return self.passed


class Tired(torch.autograd.Function):
    """The identity, which takes a minute there and ten back."""

    clock = Minutes()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Tired.clock.passed += 1
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> Tensor:
        Tired.clock.passed += 10
        return slope[0]


class Network(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Tired.apply(x)  # type: ignore[no-untyped-call]
        return out


def test_the_clock_counts_the_network_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network_clock, "now", Tired.clock)
    network, x = NetworkClock(Network()), torch.rand(2, 3)
    network(x)
    assert network.seconds == 1
    leaf = x.clone().requires_grad_()
    out = network(Tired.apply(leaf))  # type: ignore[no-untyped-call]  # an attack's own layer before it,
    Tired.clock.passed += 100
    (slope,) = torch.autograd.grad(Tired.apply(out).sum(), leaf)  # type: ignore[no-untyped-call]  # and a loss behind
    assert network.seconds == 1 + 1 + 10 and torch.equal(slope, torch.ones_like(x))


def test_a_share_is_of_the_same_runs() -> None:
    network = NetworkClock(Network())

    def ours() -> None:
        network.seconds += 1

    def theirs() -> None:
        network.seconds += 3

    ratio = speed.measure(speed.Comparison("one: other", 1.05, ours, theirs, network), 3, CPU)
    assert ratio.ours_in_network == [1, 1, 1] and ratio.theirs_in_network == [3, 3, 3]
    assert speed.measure(speed.Comparison("one: other", None, ours, theirs), 2, CPU).ours_in_network == []
    cells = speed.Ratio("a: b", 1.05, [2.0, 4.0], [1.0, 4.0], [1.0, 2.0], []).cells()
    assert cells == ["a: b", "1.50", "1.00 to 2.00", "2", "at most 1.05", "3.00", "2.50", "50.0 %", ""]


@pytest.mark.parametrize("ball", [None, ThreatModel.parse("linf:8/255")])
def test_the_bare_loop_asks_what_the_package_asks(ball: ThreatModel | None) -> None:
    images = open_data("cifar10", split="train", source="bundled", n=44)
    plan = Schedule(epochs=1, batch=20, crop=4, flip=True, validation=3, watched=2)
    recipe: Recipe = Undefended() if ball is None else AdversarialTraining(threat=str(ball), steps=speed.INNER)
    asked: list[tuple[int, bool]] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3072, 10)

        def forward(self, x: Tensor) -> Tensor:
            asked.append((len(x), self.training))
            out: Tensor = self.last(x.flatten(1))
            return out

    net = Net()
    speed.trained(net, images, plan, recipe)()
    ours = [count for count, training in asked if training]
    asked.clear()
    speed.trained_barely(net, images, plan, ball)()
    assert [count for count, _ in asked] == ours == [20] * 2 * (1 if ball is None else speed.INNER + 1)


def test_what_is_measured_is_kept_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[str] = []

    def two(given: object, device: torch.device, say: object) -> Iterator[speed.Comparison]:
        for name in ("PGD: bare", "training: bare"):
            yield speed.Comparison(name, 1.05, partial(run.append, name), list)

    monkeypatch.setattr(speed, "comparisons", two)
    command = ["--runs", "2", "--out", str(tmp_path)]
    speed.main([*command, "--only", "training"])
    assert run == ["training: bare"] * 3
    speed.main(command)
    assert run == ["training: bare"] * 3 + ["PGD: bare"] * 3
    speed.main([*command, "--trained", "500"])  # another size is another figure
    assert len(run) == 12
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.count("| PGD: bare |") == 2 and table.count("threads: ") == 2
