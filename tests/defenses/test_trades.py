from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.core import losses
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ThreatError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.defenses._adversarial import Adversarial, ascend
from robustbench_local.defenses.adversarial_training import AdversarialTraining
from robustbench_local.defenses.mart import Mart
from robustbench_local.defenses.none import Undefended
from robustbench_local.defenses.trades import Trades
from robustbench_local.models.build import build_model
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.small_networks import layer
from tests.helpers.tiny_training import accuracy, digits, fit, tiny_net

PLAN = Schedule(epochs=5, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100, watched=50)
BALL = "linf:0.1"


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), by its definition."""
    return (p * (p / q).log()).sum(1)


def opinionated() -> nn.Module:
    """A fresh net with answers that are not all alike."""
    net = build_model("fast_cnn", seed=1)
    with torch.no_grad():
        layer(net, -1).weight.mul_(50)
    return net


def slope(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def batch(n: int = 12) -> tuple[Tensor, Tensor, Draws]:
    images = digits(n)
    return images[:], images.labels, Draws(0, images.ids)


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[nn.Module, TrainingLoop]]:
    recipes: dict[str, Recipe] = {
        "none": Undefended(),
        "trades": Trades(threat=BALL, steps=2, beta=3.0, ramp=0.4),
        "mart": Mart(threat=BALL, steps=2, beta=2.0, ramp=0.4),
    }
    return {name: train(recipe) for name, recipe in recipes.items()}


def train(recipe: Recipe) -> tuple[nn.Module, TrainingLoop]:
    return fit(recipe, PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))


@pytest.mark.parametrize("name", ["trades", "mart", pytest.param("awp", marks=pytest.mark.slow)])
def test_training_raises_robust_accuracy_and_keeps_most_of_the_clean(
    trained: dict[str, tuple[nn.Module, TrainingLoop]], name: str
) -> None:
    if name == "awp":
        trained = trained | {name: train(Trades(threat=BALL, steps=2, beta=3.0, ramp=0.4, gamma=0.005))}
    test, threat = digits(250, "test"), ThreatModel.parse(BALL)
    x, y = test[:], test.labels
    robust = {
        each: accuracy(net, ascend(net, x, y, threat, Draws(9, test.ids), 20, 0.01), y)
        for each, (net, _) in trained.items()
        if each in ("none", name)
    }
    assert accuracy(trained[name][0], x, y) > 0.75
    assert robust[name] > robust["none"] + 0.15
    assert "robust" in trained[name][1].history[-1]


def test_the_loss_of_trades_is_equation_5() -> None:
    (x, y, draws), net = batch(), opinionated()
    x_adv = (x + 0.1).clamp(0, 1)
    clean, worst = net(x), net(x_adv)
    by_hand = F.cross_entropy(clean, y) + 6 * kl(clean.softmax(1), worst.softmax(1)).mean()
    torch.testing.assert_close(Trades(beta=6.0).outer(net, x, x_adv, y, draws), by_hand)
    assert not torch.isclose(by_hand, F.cross_entropy(clean, y) + 6 * kl(worst.softmax(1), clean.softmax(1)).mean())
    torch.testing.assert_close(Trades(beta=0.0).outer(net, x, x_adv, y, draws), F.cross_entropy(clean, y))


def test_the_loss_of_mart_is_equation_11() -> None:
    (x, y, draws), net = batch(), opinionated()
    x_adv = (x + 0.1).clamp(0, 1)
    p, q = net(x).softmax(1), net(x_adv).softmax(1)
    rows = torch.arange(len(y))
    others = q.clone()
    others[rows, y] = 0
    boosted = -q[rows, y].log() - (1 - others.amax(1)).log()
    by_hand = (boosted + 5 * kl(p, q) * (1 - p[rows, y])).mean()
    torch.testing.assert_close(Mart().outer(net, x, x_adv, y, draws), by_hand, rtol=1e-4, atol=1e-4)


def test_the_loss_of_mart_is_finite_where_the_network_is_certain_and_wrong() -> None:
    (x, y, draws) = batch()
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        layer(net, 1).weight.mul_(1e6)
    value = Mart().outer(net, x, x, y, draws)
    value.backward()
    assert value.isfinite() and slope(layer(net, 1).weight).isfinite().all()


@pytest.mark.parametrize("text", [BALL, "l2:1.5", "l1:12", "l0:30"])
def test_examples_stay_in_the_ball_and_raise_the_divergence(
    trained: dict[str, tuple[nn.Module, TrainingLoop]], text: str
) -> None:
    (x, y, draws), net = batch(60), trained["none"][0]
    recipe = Trades(threat=text, steps=10)
    x_adv = recipe.craft(net, x, y, draws[:])
    assert recipe.ball.contains(x_adv, x).all() and not x_adv.requires_grad
    with torch.no_grad():
        reached, begun = (losses.kl(net(each), net(x)).mean() for each in (x_adv, x + 0.001))
    assert reached > begun + 0.5


@pytest.mark.parametrize("recipe", [Trades(threat=BALL, steps=2), Mart(threat=BALL, steps=2)])
def test_crafting_leaves_the_networks_mode_statistics_and_gradients_alone(recipe: Mart | Trades) -> None:
    (x, y, draws), net = batch(), tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe.craft(net, x, y, draws)
    assert net.training and all(weight.grad is None for weight in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("recipe", [Trades, Mart, AdversarialTraining])
def test_an_example_depends_on_its_own_image_only(recipe: type[Any]) -> None:
    (x, y, draws), net = batch(), build_model("fast_cnn", seed=1).double().eval()
    craft = recipe(threat=BALL, steps=3).craft
    whole = craft(net, x.double(), y, draws[:])
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(craft(net, x[rows].double(), y[rows], draws[rows]), whole[rows])


# adversarial weight perturbation


def steps(
    recipe: AdversarialTraining | Mart | Trades, net: nn.Module, lr: float = 0.1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights before, weights after one SGD step)."""
    x, y, draws = batch()
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    recipe.step(net, x, y, torch.optim.SGD(net.parameters(), lr), draws)
    return before, dict(net.named_parameters())


@pytest.mark.parametrize("kind", [Trades, Mart, AdversarialTraining])
def test_awp_takes_the_gradient_at_weights_that_are_worse_by_gamma(kind: type[Any]) -> None:
    gamma, (x, y, draws) = 0.05, batch()
    recipe, net = kind(threat=BALL, steps=2, gamma=gamma), build_model("fast_cnn", seed=1)
    x_adv = recipe.craft(net, x, y, draws[:])

    def outer(model: nn.Module) -> Tensor:
        loss: Tensor = recipe.outer(model, x, x_adv, y, draws.stream("outer"))
        return loss

    worse = build_model("fast_cnn", seed=1)
    outer(worse).backward()
    with torch.no_grad():
        for weight in worse.parameters():
            if weight.ndim > 1:  # biases are left alone
                weight.add_(gamma * weight.norm() * slope(weight) / slope(weight).norm())
            weight.grad = None
    assert outer(worse) > outer(net) + 0.01
    outer(worse).backward()
    before, after = steps(recipe, net)
    for name, weight in worse.named_parameters():
        torch.testing.assert_close(after[name], before[name] - 0.1 * slope(weight), rtol=1e-4, atol=1e-5)
    plain = build_model("fast_cnn", seed=1)  # the broken twin: no perturbation
    _, other = steps(kind(threat=BALL, steps=2), plain)
    assert any((other[name] - after[name]).abs().max() > 1e-4 for name in before)


def test_without_gamma_a_step_is_the_plain_one() -> None:
    (x, y, draws), recipe = batch(), Trades(threat=BALL, steps=2)
    net, twin = build_model("fast_cnn", seed=1), build_model("fast_cnn", seed=1)
    before, after = steps(recipe, net)
    recipe.loss(twin, x, y, draws).backward()
    for name, weight in twin.named_parameters():
        torch.testing.assert_close(after[name], before[name] - 0.1 * slope(weight))


@pytest.mark.parametrize("kind", [Trades, Mart])
def test_the_ramp_and_the_step_size_are_those_of_adversarial_training(kind: type[Any]) -> None:
    recipe = kind(threat="linf:0.2", ramp=0.5, steps=5)
    assert recipe.at(0.25).threat == "linf:0.1" and recipe.at(0.6) is recipe
    assert isinstance(recipe.at(0.25), kind) and recipe.size == pytest.approx(0.1)
    assert recipe.at(0.25).size == pytest.approx(0.05)
    assert kind(step_size="2/255").size == pytest.approx(2 / 255)


@pytest.mark.parametrize("kind", [Trades, Mart, AdversarialTraining])
def test_settings_that_mean_nothing_are_refused(kind: type[Any]) -> None:
    wrong: list[dict[str, Any]] = [{"steps": 0}, {"ramp": 1.5}, {"gamma": -0.1}, {"gamma": 1.0}]
    wrong += [{"beta": -1.0}] if kind is not AdversarialTraining else []
    for settings in wrong:
        ((name, value),) = settings.items()
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            kind(**settings)
    with pytest.raises(ThreatError, match="unknown norm"):
        kind(threat="lmax:0.1")
    assert issubclass(kind, Adversarial)
