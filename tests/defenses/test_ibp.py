"""Training by intervals: its loss in closed form, its schedules, its boxes, and that what is learnt is certified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.bounds.certify import certify
from robustbench_local.bounds.interval import propagate
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.defenses._adversarial import ascend
from robustbench_local.defenses.ibp import Ibp
from robustbench_local.defenses.none import Undefended
from robustbench_local.models.build import build_model
from tests.helpers.small_networks import layer
from tests.helpers.tiny_training import accuracy, digits, fit

PLAN = Schedule(epochs=8, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100, watched=50)
BALL = "linf:0.1"


def batch(n: int = 12) -> tuple[Tensor, Tensor, Draws]:
    images = digits(n)
    return images[:], images.labels, Draws(0, images.ids)


def linear() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.normal_(layer(net, -1).weight, 0, 0.1, generator=torch.Generator().manual_seed(0))
    return net


def test_the_loss_of_a_linear_network_is_that_of_the_worst_image_for_every_class() -> None:
    (x, y, draws), net, eps = batch(), linear(), 0.1
    weight = layer(net, -1).weight
    worst = torch.zeros(len(x), 10)
    for row in range(len(x)):
        for other in range(10):
            steepest = (weight[other] - weight[y[row]]).sign().view(1, 28, 28)
            logits = net((x[row] + eps * steepest).clamp(0, 1).unsqueeze(0))[0]
            worst[row, other] = logits[other] - logits[y[row]]
    expected = 0.3 * F.cross_entropy(net(x), y) + 0.7 * F.cross_entropy(worst, y)
    torch.testing.assert_close(Ibp(threat=BALL, kappa=0.3).loss(net, x, y, draws), expected)
    assert not torch.allclose(Ibp(threat="linf:0.11", kappa=0.3).loss(net, x, y, draws), expected, rtol=1e-2)


def test_validation_gives_the_share_that_is_certified() -> None:
    x, y, draws = batch(60)
    net, _ = fit(Undefended(), PLAN, images=digits(300), net=linear())
    certified = certify(net, x, y, "linf:0.01", method="ibp").certified
    assert 0.1 < float(certified.float().mean()) < 0.9
    assert Ibp(threat="linf:0.01").validate(net, x, y, draws) == pytest.approx(float(certified.float().mean()))


def test_after_the_warm_up_eps_grows_and_kappa_falls() -> None:
    recipe = Ibp(threat="linf:0.2", warmup=0.1, ramp=0.5, kappa=0.4)
    assert recipe.at(0.05).ball.eps == 0 and recipe.at(0.05).kappa == 1
    half = recipe.at(0.35)
    assert half.ball.eps == pytest.approx(0.1) and half.kappa == pytest.approx(0.7)
    assert recipe.at(0.61) is recipe
    assert Ibp(warmup=0.0, ramp=0.0).at(0.0).ball.eps == 0.3


def test_on_clean_images_nothing_but_their_loss_is_lowered() -> None:
    (x, y, draws), net = batch(), build_model("fast_cnn", seed=0)
    torch.testing.assert_close(Ibp().at(0.0).loss(net, x, y, draws), F.cross_entropy(net(x), y))


def boxes_leave_the_ball(ratio: float, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a box of SABR's is not in ball and pixel range, or not of its size where both leave room."""
    (x, y, draws), net, eps = batch(), build_model("fast_cnn", seed=0).train(), 0.1
    found: list[tuple[Tensor, Tensor]] = []

    def watched(net: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Any:
        found.append((low, high))
        return propagate(net, x, low, high)

    with monkeypatch.context() as patch:
        patch.setattr("robustbench_local.defenses.ibp.propagate", watched)
        Ibp(threat=BALL, ratio=ratio, steps=3).loss(net, x, y, draws)
    ((low, high),) = found
    assert net.training
    inside = bool((low >= (x - eps).clamp(min=0) - 1e-6).all() and (high <= (x + eps).clamp(max=1) + 1e-6).all())
    width = float((high - low).max())
    moved = float(((high + low) / 2 - x).abs().max()) > 0.05
    return not (inside and width == pytest.approx(2 * ratio * eps) and moved)


def test_a_smaller_box_lies_in_the_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not boxes_leave_the_ball(0.3, monkeypatch)
    with monkeypatch.context() as patch:  # PGD in a ball that leaves no room for the box
        patch.setattr(
            "robustbench_local.defenses.ibp.ascend",
            lambda net, x, y, room, *rest: ascend(net, x, y, replace(room, eps=0.1), *rest),
        )
        assert boxes_leave_the_ball(0.3, monkeypatch)


def certified_share(recipe: Recipe) -> tuple[float, float]:
    """(accuracy, the share that intervals certify), of a network so trained, on images that it has not seen."""
    net, _ = fit(recipe, PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
    test = digits(200, "test")
    return accuracy(net, test[:], test.labels), float(
        certify(net, test[:], test.labels, BALL, method="ibp").certified.float().mean()
    )


def test_what_is_learnt_is_certified() -> None:
    accurate, certified = certified_share(Ibp(threat=BALL, kappa=0.25))
    assert accurate > 0.75 and certified > 0.35
    assert certified_share(Undefended())[1] == 0


@pytest.mark.slow
def test_smaller_boxes_leave_more_accuracy() -> None:
    accurate, _ = certified_share(Ibp(threat="linf:0.2", kappa=0.0))
    more, _ = certified_share(Ibp(threat="linf:0.2", kappa=0.0, ratio=0.4, steps=3))
    assert more > accurate + 0.05


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"threat": "l2:0.5"}, "threat is l2:0.5: intervals are boxes"),
        ({"warmup": 0.6}, "warmup is 0.6"),
        ({"kappa": 1.2}, "kappa is 1.2"),
        ({"ratio": 0.0}, r"ratio is 0.0: it must be in \(0, 1\]"),
        ({"steps": 0}, "steps is 0"),
        ({"ramp": 1.5}, "ramp is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Ibp(**settings)
