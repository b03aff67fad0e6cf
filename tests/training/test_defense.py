from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended, Deployed, Preprocess, call, is_stochastic
from robustbench_local.core.draws import Draws
from tests.helpers.small_networks import layer


class Quantise(Preprocess):
    """Four grey levels; gradients pass as if it were the identity (the default surrogate)."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 3).round() / 3


class Soft(Quantise):
    """The same with a surrogate that is not the identity, so that its gradient can be told apart."""

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x**2


class Smooth(Preprocess):
    surrogate = None  # type: ignore[assignment]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x**3


class Noise(Preprocess):
    """Multiplies by a random number; both sides draw, and report what they drew."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        self.seen["forward"] = factor = draws.uniform(*x.shape[1:])
        return (x * factor * 7).floor() / 7

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        self.seen["surrogate"] = factor = draws.uniform(*x.shape[1:])
        return x * factor


class NoSurrogate(Deployed):
    """The broken twin: gradients go through the steps as they are."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        for step in self.steps:
            x = step(x, draws)
        logits: Tensor = self.net(x)
        return logits


class Add(Defended):
    """A network that draws."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        return x.flatten(1) + draws.uniform(x[0].numel())


def images(n: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 2, 3, generator=torch.Generator().manual_seed(seed))


def linear(weights: Tensor | None = None) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        layer(net, 1).weight.copy_(torch.arange(12.0).view(2, 6) if weights is None else weights)
    return net


def gradient(model: Deployed | nn.Module, x: Tensor, draws: Draws | None = None) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(x, draws)[:, 0].sum(), x)
    return grad


def slope(x: Tensor) -> Tensor:
    """The gradient of the linear net's first logit."""
    return torch.arange(6.0).view(1, 1, 2, 3).expand_as(x)


def test_values_are_the_deployed_ones_to_the_last_bit_with_and_without_gradients() -> None:
    x = images(500)
    for step in (Quantise(), Soft(), Smooth()):
        model = Deployed(nn.Flatten(), [step])
        expected = step(x).flatten(1)
        assert torch.equal(model(x), expected)
        assert torch.equal(model(x.clone().requires_grad_()), expected)


def test_gradients_are_the_surrogates() -> None:
    x = images()
    torch.testing.assert_close(gradient(Deployed(linear(), [Quantise()]), x), slope(x))
    torch.testing.assert_close(gradient(Deployed(linear(), [Soft()]), x), slope(x) * 2 * x)
    torch.testing.assert_close(gradient(Deployed(linear(), [Smooth()]), x), slope(x) * 3 * x**2)


def test_without_the_surrogate_there_is_no_gradient() -> None:
    x = images()
    broken = gradient(NoSurrogate(linear(), [Quantise()]), x)
    assert (broken == 0).all() and (gradient(Deployed(linear(), [Quantise()]), x) != 0).any()


def test_forward_and_surrogate_get_the_same_draws_and_each_query_the_next() -> None:
    x, step = images(), Noise()
    model = Deployed(linear(), [step])
    draws = Draws(0, torch.arange(4))
    grad = gradient(model, x, draws[:])
    assert torch.equal(step.seen["forward"], step.seen["surrogate"])
    torch.testing.assert_close(grad, slope(x) * step.seen["surrogate"])
    first = step.seen["forward"]
    model(x, draws[:])
    assert torch.equal(step.seen["forward"], first)  # with gradients or without, the same numbers
    model(x, draws.with_counter(torch.ones(4, dtype=torch.int64)))
    assert not torch.equal(step.seen["forward"], first)


def test_steps_act_in_order_and_gradients_chain() -> None:
    x = images()
    model = Deployed(linear(), [Smooth(), Soft()])
    assert torch.equal(model(x), linear()(Quantise()(x**3)))
    assert not torch.equal(model(x), Deployed(linear(), [Soft(), Smooth()])(x))
    torch.testing.assert_close(gradient(model, x), slope(x) * 2 * x**3 * 3 * x**2)


def test_a_second_surrogate_is_taken_at_the_value_that_was_deployed() -> None:
    x = images()
    chained = gradient(Deployed(linear(), [Quantise(), Soft()]), x)
    torch.testing.assert_close(chained, slope(x) * 2 * Quantise()(x))


def test_all_randomness_of_a_pipeline_is_independent() -> None:
    ids = torch.arange(2000)
    x = torch.ones(2000, 1, 2, 3)
    steps = [Noise(), Noise(), Noise()]
    net = Add()
    Deployed(Deployed(net, steps[:1]), steps[1:])(x, Draws(0, ids))
    columns = torch.stack([step.seen["forward"].flatten() for step in steps])
    added = net(torch.zeros_like(x), Draws(0, ids).stream("net").stream("net")).flatten()
    correlation = torch.corrcoef(torch.cat([columns, added[None]])) - torch.eye(4)
    assert correlation.abs().max() < 0.05


def test_weights_train_through_the_pipeline() -> None:
    model = Deployed(linear(), [Quantise()])
    model(images())[:, 0].sum().backward()
    grad = layer(model.net, 1).weight.grad
    assert grad is not None and grad.abs().sum() > 0


@pytest.mark.parametrize(
    "model, stochastic",
    [
        (linear(), False),
        (Deployed(linear()), False),
        (Deployed(linear(), [Quantise()]), False),
        (Deployed(linear(), [Quantise(), Noise()]), True),
        (Deployed(Add()), True),
        (Deployed(Deployed(Add()), [Quantise()]), True),
    ],
)
def test_the_stochastic_mark_is_that_of_any_part(model: Deployed | nn.Module, stochastic: bool) -> None:
    assert is_stochastic(model) is stochastic


def test_draws_go_to_those_who_take_them_only() -> None:
    x, draws = images(), Draws(0, torch.arange(4))
    assert torch.equal(call(linear(), x, draws), linear()(x))
    assert torch.equal(call(Add(), x, draws[:]), x.flatten(1) + draws.uniform(6))
    assert torch.equal(Deployed(linear(), [Quantise()])(x, draws), Deployed(linear(), [Quantise()])(x))


def test_parts_are_registered_so_that_modes_and_devices_reach_them() -> None:
    model = Deployed(linear(), [Quantise()])
    model.eval()
    assert not any(module.training for module in model.modules())
    assert {name for name, _ in model.named_parameters()} == {"net.1.weight"}
