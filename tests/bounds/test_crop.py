"""Bounds through windows against those of the whole network, of every kind of layer; and each window broken in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.bounds import alpha, crown
from robustbench_local.bounds import crop as cropping
from robustbench_local.bounds.affine import AveragePool, Conv, Pad, Scale
from robustbench_local.bounds.alpha import retightened
from robustbench_local.bounds.ball import Ball
from robustbench_local.bounds.crop import Crop, crop, squares
from robustbench_local.bounds.crown import tightened
from robustbench_local.bounds.max_pool import MaxPool
from robustbench_local.bounds.network import Network
from robustbench_local.bounds.reading import read
from robustbench_local.bounds.step import Box
from robustbench_local.bounds.window import Window
from robustbench_local.core.model_state import seeded
from robustbench_local.core.threat import ThreatModel
from tests.helpers.exact_margins import Residual

SHAPE = (2, 7, 6)  # odd, and not square


class Shortcut(nn.Module):
    """A residual block that halves: two kernels read the same image through windows of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, 1, 1))
        self.short = nn.Conv2d(2, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.short(x)
        return out


class Beside(nn.Module):
    """Two layers' channels beside each other, of one of which only a part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 1, 3, 1, 1), nn.Conv2d(2, 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.pad(self.first(x), (-2, -2, -2, -2)), self.second(x)], 1)


class Wide(nn.Module):
    """A sum, of which one part reads nothing but zeros at the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 1, padding=2, bias=False), nn.Conv2d(2, 2, 3, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x) + self.second(x)
        return out


class Spread(nn.Module):
    """Another constant for each pixel, and one for each column."""

    shift: Tensor
    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.linspace(-1, 1, 42).view(1, 7, 6))
        self.register_buffer("factor", torch.linspace(0.5, 1.5, 6))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.shift) * self.factor
        return out


# what stands between two convolutions of 3 x 3, the second of which makes the values that are bounded
BETWEEN: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(2, 2, 3, padding=1),
    "stride": lambda: nn.Conv2d(2, 2, (3, 2), stride=(2, 3), padding=(1, 0)),
    "dilation": lambda: nn.Conv2d(2, 2, 3, padding=2, dilation=(2, 1)),
    "groups": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "wide padding": Wide,
    "batch norm": lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)),
    "spread": Spread,
    "average": lambda: nn.AvgPool2d(3, 2, 1),
    "maximum": lambda: nn.MaxPool2d((2, 3), (1, 2), dilation=(2, 1)),
    "padded maximum": lambda: nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(3, 2, 1)),
    "maximum over the edge": lambda: nn.MaxPool2d((2, 4), ceil_mode=True),
    "zeros": lambda: nn.ZeroPad2d((1, 0, 3, 2)),
    "cut": lambda: nn.ZeroPad2d((-2, 1, 0, -1)),
    "mean": lambda: nn.AdaptiveAvgPool2d((7, 3)),
    "sigmoid": nn.Sigmoid,
    "leak": lambda: nn.LeakyReLU(0.2),
    "residual": lambda: Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1))),
    "shortcut": Shortcut,
    "beside": Beside,
}


def network(name: str) -> tuple[nn.Sequential, Tensor]:
    """And two images."""
    with seeded(7):
        first, between = nn.Conv2d(2, 2, 3, padding=1), BETWEEN[name]()
        for layer in between.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for statistic, low, high in ((layer.running_mean, -0.3, 0.3), (layer.running_var, 0.3, 2.0)):
                    assert isinstance(statistic, Tensor)
                    nn.init.uniform_(statistic, low, high)
        body = nn.Sequential(first, nn.ReLU(), between, nn.ReLU()).eval()
        x = torch.rand(2, *SHAPE)
        channels = body(x).shape[1]
        values = [nn.Conv2d(channels, 3, 2, padding=1), nn.ReLU(), nn.Flatten()]
        tail = nn.Sequential(*body, *values)
        return nn.Sequential(*tail, nn.Linear(tail(x).shape[1], 6), nn.ReLU(), nn.Linear(6, 3)).eval(), x


def boxes(name: str, threat: str, how: Callable[..., list[Box]] = tightened) -> list[Box]:
    net, x = network(name)
    with torch.no_grad():
        return how(read(net, x), Ball.around(x, ThreatModel.parse(threat)))


def uncropped(network: Network, boxes: list[Box], ball: Ball, place: int, window: Window) -> Crop:
    return Crop(Network(network.steps[:place]), boxes, ball)


def whole(wanted: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Window, Tensor, Tensor]]:
    """As squares, without windows."""
    yield Window.whole(shape), wanted, wanted


def differs(name: str, threat: str, monkeypatch: pytest.MonkeyPatch, how: Callable[..., list[Box]] = tightened) -> bool:
    """Whether the intervals through windows of single pixels are others than without windows, or cannot be made."""
    with monkeypatch.context() as patch:
        patch.setattr(crown, "squares", whole)
        patch.setattr(crown, "crop", uncropped)
        expected = boxes(name, threat, how)
    monkeypatch.setattr(cropping, "TOGETHER", 1)
    try:
        found = boxes(name, threat, how)
    except (RuntimeError, ValueError):
        return True
    pairs = zip(found, expected, strict=True)
    return not all(
        torch.allclose(a, b, rtol=0, atol=1e-9) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("threat", ["linf:0.3", "l2:1"])
@pytest.mark.parametrize("name", BETWEEN)
def test_through_windows_bounds_are_the_same(name: str, threat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not differs(name, threat, monkeypatch)


@pytest.mark.parametrize("threat", ["l1:3", "none"])
def test_in_other_balls_too(threat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not differs("shortcut", threat, monkeypatch)


@pytest.mark.slow
def test_chosen_slopes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(network: Network, ball: Ball) -> list[Box]:
        return retightened(network, ball, tightened(network, ball))

    monkeypatch.setattr(alpha, "INNER_STEPS", 1)

    assert not differs("average", "linf:0.3", monkeypatch, chosen)


BROKEN = {
    "kernel": "conv",
    "padding": "conv",
    "stride": "stride",
    "dilation": "dilation",
    "constants": "spread",
    "zeros": "zeros",
    "average": "average",
    "maximum": "maximum",
    "hull": "shortcut",
    "numbers": "conv",
    "outside": "wide padding",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_window_is_found(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, conv, average, pool = Window.read_by, Conv.through, AveragePool.through, MaxPool.through
    match broken:
        case "kernel":  # moved by a pixel
            monkeypatch.setattr(Window, "read_by", lambda self, *g: Window(*(end + 1 for end in reads(self, *g))))
        case "padding":
            monkeypatch.setattr(Window, "read_by", lambda self, k, s, p, d=(1, 1): reads(self, k, s, (0, 0), d))
        case "stride":
            monkeypatch.setattr(Conv, "through", lambda self, window: conv(replace(self, stride=(1, 1)), window))
        case "dilation":
            monkeypatch.setattr(Conv, "through", lambda self, window: conv(replace(self, dilation=(1, 1)), window))
        case "constants":
            monkeypatch.setattr(Scale, "through", lambda self, window: (self, window))
        case "zeros":
            monkeypatch.setattr(Pad, "through", lambda self, window: (Pad((0, 0, 0, 0)), window))
        case "average":
            monkeypatch.setattr(AveragePool, "through", lambda self, window: (self, average(self, window)[1]))
        case "maximum":
            monkeypatch.setattr(MaxPool, "through", lambda self, window: pool(replace(self, dilation=(1, 1)), window))
        case "hull":  # of two layers the later one's alone
            monkeypatch.setattr(Window, "hull", lambda self, other: self)
        case "outside":
            monkeypatch.setattr(Window, "meets", lambda self, other: True)
        case _:
            monkeypatch.setattr(crown, "squares", lambda *of: ((w, some, own.flip(0)) for w, some, own in squares(*of)))
    assert differs(BROKEN[broken], "linf:0.3", monkeypatch)


def test_a_value_costs_its_receptive_field() -> None:
    with seeded(7):
        net, x = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), Shortcut(), nn.Flatten()).eval(), torch.rand(1, 2, 20, 20)
    steps, ball = read(net, x), Ball.around(x, ThreatModel.parse("linf:0.1"))
    place = len(steps.steps) - 1  # the sum
    part = crop(steps, steps.intervals(ball)[:-1], ball, place, Window(4, 5, 2, 3))
    assert part.boxes[-1].low.shape == (1, 3, 1, 1)
    assert part.ball.x.shape == part.boxes[0].low.shape == (1, 2, 9, 9)  # 3 x 3, of a stride of 2, 3 x 3, 3 x 3
    assert torch.equal(part.ball.x, x[..., 5:14, 1:10].double())


def test_squares_hold_what_is_wanted_once() -> None:
    shape = (3, 7, 10)
    wanted = torch.randperm(210, generator=torch.Generator().manual_seed(1))[:150].sort().values
    seen = []
    for window, values, numbers in squares(wanted, shape):
        plane = torch.arange(210).view(shape)
        assert torch.equal(window.of(plane).flatten()[numbers], values)
        seen.append(values)
    assert len(seen) > 1 and torch.equal(torch.cat(seen).sort().values, wanted)
