"""Thermometer encoding: the code, its ramps, the widened network, and what training makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import Deployed
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import NoTraining, Schedule
from robustbench_local.data.load import load_data, open_data
from robustbench_local.defenses.none import Undefended
from robustbench_local.defenses.thermometer import Thermometer, widened
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model, rebuild
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.wrapping import digits, photos

PLAN = Schedule(epochs=4, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100, watched=50)


def encode(x: Tensor, levels: int) -> Tensor:
    return Thermometer(levels).apply(x, None)


def test_the_code_is_that_of_the_paper() -> None:
    """Buckman et al., table 1: 0.13, 0.66 and 0.92 on ten levels; and the borders."""
    x = torch.tensor([0.13, 0.66, 0.92, 0.0, 1.0]).view(1, 1, 1, 5)
    codes = encode(x, 10)[0, :, 0].T
    assert codes.sum(1).tolist() == [2, 7, 10, 0, 10]
    assert torch.equal(codes, codes.sort(1, descending=True).values)  # filled from the bottom


def test_channels_of_a_colour_stand_together() -> None:
    x = photos(3)
    codes = encode(x, 5)
    assert codes.shape == (3, 15, 32, 32) and set(codes.unique().tolist()) == {0.0, 1.0}
    for channel in range(3):
        assert torch.equal(codes[:, 5 * channel : 5 * channel + 5], encode(x[:, channel : channel + 1], 5))


def test_the_ramps_are_near_the_code_and_have_its_slope() -> None:
    x, levels = torch.linspace(0.0013, 0.9967, 500).view(1, 1, 20, 25).requires_grad_(), 8
    ramps = Thermometer(levels).soft(x, None)
    assert (ramps - encode(x, levels)).abs().max() <= 1
    torch.testing.assert_close(ramps.sum(1), levels * x[:, 0])
    (grad,) = torch.autograd.grad(ramps.sum(), x)
    assert ((x * levels).frac() > 1e-5).all()  # on a rung both ramps would count
    torch.testing.assert_close(grad, torch.full_like(x, levels))


def test_gradients_of_what_is_deployed_are_the_ramps() -> None:
    x = photos(4)
    model = rebuild("preact_small", Thermometer(6))
    assert isinstance(model, Deployed)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf).square().sum(), leaf)
    hard = encode(x, 6).requires_grad_()
    (inner,) = torch.autograd.grad(model.net(hard).square().sum(), hard)
    ramp = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Thermometer(6).soft(ramp, None), ramp, inner)
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0 and torch.equal(model(x), model(leaf))


@pytest.mark.parametrize("architecture, x", [("preact_small", photos(6)), ("mnist_small", digits(6))])
def test_a_widened_network_begins_as_what_it_was(architecture: str, x: Tensor) -> None:
    """On pixels that lie on the levels, the mean of a code is the pixel."""
    x = (x * 12).round() / 12
    net = build_model(architecture).eval()
    before = net(x)
    model = rebuild(architecture, Thermometer(12))
    torch.testing.assert_close(model(x), before, atol=1e-4, rtol=1e-3)


def test_networks_that_cannot_be_widened_are_refused() -> None:
    with pytest.raises(ConfigError, match="convolution"):
        widened(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 4)


def trained(defense: Thermometer | Undefended, plan: Schedule = PLAN) -> tuple[nn.Module, TrainingLoop]:
    images = open_data("mnist", split="train", source="bundled", n=800)
    trainer = TrainingLoop(images, plan, progress=Progress())
    return defense.build(build_model("fast_cnn"), trainer, Draws(0, images.ids[:1]).stream("train")), trainer


def test_it_learns_and_falls_to_who_knows_the_ramps() -> None:
    model, trainer = trained(Thermometer())
    assert not model.training and "robust" not in trainer.history[-1]
    x, y = load_data("mnist", n=100, source="bundled")
    settings = {"threat": "linf:0.2", "steps": 30}
    adaptive = evaluate(model, x, y, "pgd", **settings)  # type: ignore[arg-type]
    assert adaptive.clean_accuracy > 0.8 and adaptive.robust_accuracy < 0.1

    class NoRamps(Thermometer):
        differentiable = True  # gradients go through the steps of the code, which have none

    twin = NoRamps().build(build_model("fast_cnn"), NoTraining(), Draws(0, torch.arange(1)))
    twin.load_state_dict(model.state_dict())
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(twin(leaf).sum(), leaf)


def test_adversarial_training_goes_through_the_ramps() -> None:
    plan = replace(PLAN, epochs=3)
    model, trainer = trained(Thermometer(8, threat="linf:0.1", steps=2), plan)
    plain, _ = trained(Thermometer(8), plan)
    x, y = load_data("mnist", n=100, source="bundled")
    robust, weak = (evaluate(each, x, y, "pgd", "linf:0.1", steps=20).robust_accuracy for each in (model, plain))
    assert robust > weak + 0.15 and trainer.history[-1]["robust"] > 0.2


def test_a_checkpoint_finds_its_place() -> None:
    model, _ = trained(Thermometer(4), replace(PLAN, epochs=1))
    again = rebuild("fast_cnn", Thermometer(4))
    assert weights_digest(again) != weights_digest(model)
    again.load_state_dict(model.state_dict())
    assert weights_digest(again) == weights_digest(model)
    torch.testing.assert_close(again(digits()), model(digits()))


@pytest.mark.parametrize(
    "settings, text", [({"levels": 1}, "levels is 1"), ({"threat": "linf"}, "threat"), ({"steps": 0}, "steps is 0")]
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(Exception, match=text):
        find_defense("thermometer", settings)
