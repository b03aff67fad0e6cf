"""The purifier: its gradients are those of plain autograd, it holds less for them, and its denoiser learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import Deployed, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Schedule
from robustbench_local.defenses.purifier import Purifying
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.tiny_training import digits, tiny_net

DRAWS = Draws(0, torch.arange(3), dtype=torch.float64)


def purifying(steps: int = 5) -> Purifying:
    return Purifying(0.5, steps, 8).double().requires_grad_(False)


def images(channels: int = 1, size: tuple[int, int] = (12, 12)) -> Tensor:
    return Draws(1, torch.arange(3), dtype=torch.float64).uniform(channels, *size)


def plain(step: Purifying, x: Tensor, draws: Draws) -> Tensor:
    """All rounds in one graph."""
    for k in range(step.steps):
        x = step.round(x, draws, k)
    return x


def slope(ask: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    out = ask(leaf)
    return out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]


@pytest.mark.parametrize(("channels", "size"), [(1, (12, 12)), (3, (7, 5))])
def test_rounds_made_again_have_the_gradients_of_plain_autograd(channels: int, size: tuple[int, int]) -> None:
    step, x = purifying(), images(channels, size)
    once, gradient = slope(lambda leaf: step(leaf, DRAWS[:]), x)
    whole, exact = slope(lambda leaf: plain(step, leaf, DRAWS[:]), x)
    assert torch.equal(once, whole) and torch.equal(gradient, exact) and gradient.abs().amin() > 0
    other = slope(lambda leaf: step(leaf, DRAWS.stream("other")), x)[1]
    assert not torch.allclose(other, exact, rtol=0.01)  # the broken twin replays other numbers


def test_the_gradient_is_the_functions_own() -> None:
    step, x = purifying(steps=2), images(size=(4, 4))[:1]
    assert torch.autograd.gradcheck(lambda leaf: step(leaf, DRAWS[:1]), x.requires_grad_(), fast_mode=True)


def held(ask: Any, x: Tensor) -> int:
    """Bytes that autograd keeps of one forward pass, beside the images that each round begins with."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ask(x.clone().requires_grad_())
    return sum(kept.values())


def test_it_holds_less_than_plain_autograd() -> None:
    step, x = purifying(), images()
    rounds = step.steps * x.nbytes
    assert held(lambda leaf: step(leaf, DRAWS[:]), x) + rounds < held(lambda leaf: plain(step, leaf, DRAWS[:]), x) / 4


def test_more_rounds_are_other_random_numbers_and_the_same_draws_are_the_same_image() -> None:
    step, x = purifying(), images()
    with torch.no_grad():
        first = step(x, DRAWS[:])
        assert torch.equal(first, step(x, DRAWS[:])) and torch.equal(first[1:], step(x[1:], DRAWS[1:]))
        assert not torch.equal(first, step(x, DRAWS.stream("other")))
        noise = [step.round(torch.zeros_like(x), DRAWS[:], k) for k in (0, 1)]
        assert not torch.allclose(noise[0] / 0.5, noise[1] / 0.4, rtol=0.01)


def test_the_denoiser_learns_and_the_network_stays_as_it_is() -> None:
    loop = TrainingLoop(digits(400), Schedule(validation=1, batch=1), progress=Progress())
    net = tiny_net().eval()
    before = weights_digest(net)
    settings = {"sigma": 0.3, "steps": 3, "width": 16, "images": 400, "epochs": 30}
    model = find_defense("purifier", settings).build(net, loop, Draws(0, torch.zeros(1, dtype=torch.int64)))
    assert isinstance(model, Deployed) and model.stochastic and not model.training
    assert weights_digest(net) == before and all(each.requires_grad for each in net.parameters())
    (front,) = model.steps
    assert isinstance(front, Purifying)
    x, draws = digits(400)[:40], Draws(0, torch.arange(40))
    with torch.no_grad():
        purified = front(x, draws[:])
        fresh = Purifying(0.3, 3, 16)(x, draws[:])
    assert (purified - x).square().mean() < 0.3**2 / 2 < (fresh - x).square().mean()  # half of the first noise
    assert call(model, x, draws).shape == (40, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sigma": 0.0}, "sigma is 0.0"), ({"steps": 0}, "steps is 0"), ({"epochs": 0}, "epochs is 0")],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_defense("purifier", settings)
