from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.defense import Deployed, call, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import NoTraining, Schedule
from robustbench_local.defenses.noise_fusion import InputNoise, NoiseFusion
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.ops.noise import Kind
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.small_networks import layer
from tests.helpers.tiny_training import TINY, digits, fit

PLAN = Schedule(epochs=4, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100)


def linear(size: int = 48, classes: int = 3) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(size, classes))
    with torch.no_grad():
        layer(net, 1).weight.copy_(torch.linspace(-1, 1, classes * size).view(classes, size).mul(9).cos())
        layer(net, 1).bias.zero_()
    return net


def images(n: int = 6, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(0))


def built(**settings: Any) -> Deployed:
    draws = Draws(0, torch.zeros(1, dtype=torch.int64))
    model = NoiseFusion(training=False, **settings).build(linear(), NoTraining(), draws)
    assert isinstance(model, Deployed)
    return model


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "laplace", "salt_pepper", "speckle"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_sees_pixels(kind: Kind, channels: int) -> None:
    x, step = images(50, channels), InputNoise(kind, 0.5)
    found = step(x, Draws(0, torch.arange(50)))
    assert found.min() >= 0 and found.max() <= 1 and found.shape == x.shape and found.dtype == x.dtype
    assert not torch.equal(found, x)


def test_noise_is_the_samples_own_in_any_batch_and_other_in_any_draw() -> None:
    x, model, draws = images(), built(amplitude=0.3), Draws(0, torch.arange(6))
    assert model.stochastic and not model.training
    answers = model(x, draws[:])
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(model(x[rows], draws[rows]), answers[rows])
    assert torch.equal(model(x, draws[:]), answers)
    assert not torch.equal(model(x, draws.stream("other")), answers)
    assert torch.equal(model(x), model(x))  # without draws it still answers, and repeats itself


def test_gradients_pass_and_agree_with_finite_differences() -> None:
    x = (0.3 + 0.4 * images(2)).double().requires_grad_()  # away from the clip, where a difference has no meaning
    model, draws = built(kind="uniform", amplitude=0.2).double(), Draws(0, torch.arange(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: model(x, draws[:]), (x,))


@pytest.mark.parametrize("run_time, training", [(True, True), (False, True), (True, False)])
def test_each_side_can_be_switched(run_time: bool, training: bool) -> None:
    defense = NoiseFusion(amplitude=0.3, run_time=run_time, training=training)
    assert defense.trains is training
    trainer = TrainingLoop(digits(200), TINY, progress=Progress())
    base = build_model("fast_cnn")
    before = [parameter.clone() for parameter in base.parameters()]
    model = defense.build(base, trainer, Draws(0, torch.zeros(1, dtype=torch.int64)))
    moved = any(not torch.equal(a, b) for a, b in zip(before, base.parameters(), strict=True))
    assert moved is training and len(trainer.history) == (3 if training else 0)
    assert is_stochastic(model) is run_time


def test_training_on_noise_gives_accuracy_under_noise() -> None:
    test, accuracy = digits(300, "test"), {}
    noisy = InputNoise("gaussian", 0.6)(test[:], Draws(5, test.ids))
    for training, run_time in ((False, True), (True, False)):
        recipe = NoiseFusion(amplitude=0.6, training=training, run_time=run_time)
        if not training:
            recipe = NoiseFusion(amplitude=0.0)  # the same loop without any noise
        net, _ = fit(recipe, PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
        with torch.no_grad():
            accuracy[training] = (net(noisy).argmax(1) == test.labels).double().mean().item()
    assert accuracy[True] > accuracy[False] + 0.1


def test_the_judge_takes_it_as_random_and_the_expectation_is_followed() -> None:
    x = images(40)
    y = linear()(x).argmax(1)
    verdict = evaluate(built(amplitude=0.1), x, y, "pgd", "linf:0.3", steps=5, eot=4)
    assert verdict.flags == () and verdict.bits is not None
    assert verdict.robust_accuracy < verdict.clean_accuracy - 0.3


def test_one_checkpoint_serves_all_that_trained_alike() -> None:
    builder, model = ModelBuilder(torch.device("cpu")), ModelConfig("mnist_small")
    plans = {
        (run_time, training): builder.spec(
            "mnist", model, {"noise_fusion": {"run_time": run_time, "training": training}}
        )
        for run_time, training in itertools.product((True, False), repeat=2)
        if run_time or training
    }
    assert plans[True, True].recipe == plans[False, True].recipe
    assert plans[True, True].defense != plans[False, True].defense
    undefended = plans[True, False].recipe
    assert undefended is not None and undefended.defense_name == "none"
    assert not builder.needs_training(plans[True, False])  # the undefended network of the zoo, behind noise
    made = builder.build(plans[True, False])
    assert isinstance(made, Deployed) and made.stochastic
    bare = builder.build(builder.spec("mnist", model, "none"))
    x, draws = digits(5)[:], Draws(0, torch.arange(5))
    expected = bare(InputNoise("gaussian", 0.1)(x, draws.stream("preprocess:0")))
    torch.testing.assert_close(call(made, x, draws), expected)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "pink"}, 'noise "pink" is unknown'),
        ({"amplitude": -1.0}, "amplitude is -1.0"),
        ({"run_time": False, "training": False}, "no defense"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    settings: dict[str, bool] | dict[str, float] | dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseFusion(**settings)
