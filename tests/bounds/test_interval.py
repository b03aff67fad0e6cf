"""Intervals that training lowers: those of the certificates, differentiable, with batch norm as in training."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.bounds import interval
from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.interval import Interval, propagate
from robustbench_local.core.errors import BoundsError
from robustbench_local.core.model_state import seeded
from robustbench_local.models.architectures import Normalise
from tests.helpers.exact_margins import Residual

EPS = 0.05


def network() -> nn.Sequential:
    """Of every kind of layer, for images (1, 8, 8) and three classes, with batch norms that do something."""
    with seeded(2):
        net = nn.Sequential(
            Normalise([0.4], [0.3]),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, bias=False))),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 2),
            nn.BatchNorm2d(6, affine=False),
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(6, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                nn.init.uniform_(layer.running_mean, -0.3, 0.3)
                nn.init.uniform_(layer.running_var, 0.3, 2.0)
            if isinstance(layer, nn.BatchNorm2d) and layer.affine:
                nn.init.uniform_(layer.weight, -1.5, 1.5)
    return net.eval()


def images() -> Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(5)).round(decimals=1)


def around(net: nn.Module, x: Tensor, eps: float = EPS) -> Interval:
    return propagate(net, x, (x - eps).clamp(min=0), (x + eps).clamp(max=1))


def differs(x: Tensor, y: Tensor) -> bool:
    """From what the certificates compute, by more than float32's rounding, for which they allow."""
    net = network()
    found = around(net, x).margins(y).scatter(1, y.unsqueeze(1), torch.inf).amin(1)
    expected = certify(net, x, y, f"linf:{EPS}", method="ibp").margins
    return not torch.allclose(found.double(), expected, rtol=0, atol=5e-4)


def test_the_margins_are_those_of_the_certificate() -> None:
    x = images()
    y = network()(x).argmax(1)
    assert not differs(x, y)
    torch.testing.assert_close(around(network(), x).point, network()(x))


@pytest.mark.parametrize("broken", ["affine", "relu", "batch norm", "pool", "elision"])
def test_a_broken_rule_is_found(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    y = network()(x).argmax(1)

    def of_middle(made: Callable[[Tensor], Tensor], x: Interval) -> Interval:
        return Interval(made(x.point), made(x.middle), x.radius)

    match broken:
        case "affine":
            monkeypatch.setitem(
                interval._RULES,
                "conv2d",
                lambda x, weight, bias, *geometry: Interval(
                    F.conv2d(x.point, weight, bias, *geometry),
                    F.conv2d(x.middle, weight, bias, *geometry),
                    F.conv2d(x.radius, weight, None, *geometry),
                ),
            )
        case "relu":
            monkeypatch.setitem(interval._RULES, "relu", lambda x, inplace: of_middle(torch.relu, x))
        case "batch norm":
            monkeypatch.setattr(
                Interval, "__mul__", lambda x, other: Interval(x.point * other, x.middle * other, x.radius * other)
            )
        case "pool":
            monkeypatch.setitem(
                interval._RULES, "max_pool2d", lambda x, *size, **_: x._each(lambda v: F.max_pool2d(v, *size[:2]))
            )
        case _:
            monkeypatch.setattr(Interval, "margins", lambda x, y: x.low.gather(1, y.unsqueeze(1)) - x.high)
    assert differs(x, y)


def test_in_training_batch_norm_takes_the_statistics_of_the_images() -> None:
    x, net, plain = images(), network().train(), network().train()
    expected = plain(x)
    found = around(net, x)
    torch.testing.assert_close(found.point, expected)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    point = propagate(copy.deepcopy(net), x, x, x)
    torch.testing.assert_close(point.middle, point.point, rtol=1e-4, atol=1e-4)
    inside = torch.cat([around(net, x).low <= expected + 1e-4, expected <= around(net, x).high + 1e-4])
    assert bool(inside.all()) and float(found.radius.detach().min()) > 0


def test_the_gradient_is_that_of_the_dual_norm() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x, y = 0.2 + 0.6 * images(), torch.zeros(5, dtype=torch.int64)  # away from the edges of the box
    around(net, x).margins(y)[:, 1].sum().backward()
    last = net[1]
    assert isinstance(last, nn.Linear) and last.weight.grad is not None
    difference = (last.weight[0] - last.weight[1]).detach()
    expected = (x.flatten(1) - EPS * difference.sign()).sum(0)
    torch.testing.assert_close(last.weight.grad, torch.stack([expected, -expected]))


def test_dropout_drops_the_same_of_images_and_boxes() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)).train()
    found = propagate(net, images(), images(), images())
    torch.testing.assert_close(found.point, found.middle)


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.Sigmoid(), "sigmoid"), (nn.Softmax(1), "softmax"), (nn.LayerNorm([1, 8, 8]), "layer_norm")]
)
def test_what_no_interval_is_known_of_is_named(layer: nn.Module, name: str) -> None:
    with pytest.raises(BoundsError, match=f'no interval is known of the operation "{name}"'):
        around(nn.Sequential(layer, nn.Flatten()), images())


class Squashed(nn.Module):
    """A method of tensors that intervals have not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()


class Constant(nn.Module):
    """An answer of no image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(1)


@pytest.mark.parametrize(("net", "text"), [(Squashed(), "Squashed computes .*sigmoid"), (Constant(), "Constant")])
def test_what_no_interval_comes_of_is_refused(net: nn.Module, text: str) -> None:
    with pytest.raises(BoundsError, match=f"no interval is known of what {text}"):
        around(net, images())
