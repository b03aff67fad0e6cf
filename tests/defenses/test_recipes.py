"""The smaller recipes, and what the trainer offers them."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.data.load import open_data
from robustbench_local.defenses.adversarial_training import AdversarialTraining
from robustbench_local.defenses.autoencoder import Autoencoder, Denoiser
from robustbench_local.defenses.distillation import Distillation
from robustbench_local.defenses.ensemble import Ensemble
from robustbench_local.defenses.gradient_regularisation import GradientRegularisation
from robustbench_local.defenses.ibp import Ibp
from robustbench_local.defenses.label_smoothing import LabelSmoothing
from robustbench_local.defenses.mart import Mart
from robustbench_local.defenses.noise_fusion import NoiseFusion
from robustbench_local.defenses.noise_layers import NoiseLayers, Noisy, NoisyNet
from robustbench_local.defenses.none import Undefended
from robustbench_local.defenses.randomized_smoothing import RandomizedSmoothing
from robustbench_local.defenses.trades import Trades
from robustbench_local.models import zoo
from robustbench_local.models.build import build_model, rebuild
from robustbench_local.models.load import load_model
from robustbench_local.storage import checkpoints
from robustbench_local.training.recipes import TrainingRecipe, describe, metadata, parse_recipe
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.tiny_training import TINY, Killed, Lines, accuracy, assert_equal_weights, digits, fit, tiny_net

PLAN = Schedule(epochs=5, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100, watched=50)
ONCE = dataclasses.replace(TINY, epochs=1, validation=40, watched=10)
NUMBER = Draws(0, torch.zeros(1, dtype=torch.int64))


def built(defense: Any, plan: Schedule = ONCE, n: int = 200, architecture: str = "fast_cnn") -> Any:
    trainer = TrainingLoop(digits(n), plan, progress=Progress())
    return defense.build(build_model(architecture, seed=0), trainer, NUMBER.stream("train")), trainer


def batch(n: int = 8) -> tuple[Tensor, Tensor, Draws]:
    return digits(n)[:], digits(n).labels, Draws(0, torch.arange(n))


# what a checkpoint is made into

DEFENSES = [
    Undefended(),
    AdversarialTraining(threat="linf:0.1", method="free", steps=2),
    Trades(threat="linf:0.1", steps=1),
    Mart(threat="linf:0.1", steps=1),
    Ibp(threat="linf:0.1", steps=1, ratio=0.5),
    LabelSmoothing(),
    GradientRegularisation(),
    Distillation(),
    NoiseFusion(),
    NoiseFusion(run_time=False),
    NoiseLayers(),
    NoiseLayers(learnt=True, threat="linf:0.1", steps=1, passes=2),
    RandomizedSmoothing(samples=12),
    Ensemble(members=2),
    Autoencoder(),
]


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: type(defense).__name__)
def test_a_checkpoint_becomes_again_what_was_deployed(
    defense: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    model, trainer = built(defense)
    assert not any(module.training for module in model.modules())
    assert trainer.minutes > 0 and len(trainer.history) == 1
    name = next(
        name
        for name in (
            "none",
            "adversarial_training",
            "trades",
            "mart",
            "ibp",
            "label_smoothing",
            "distillation",
            "gradient_regularisation",
            "noise_fusion",
            "noise_layers",
            "randomized_smoothing",
            "ensemble",
            "autoencoder",
        )
        if type(find_defense(name)) is type(defense)
    )
    recipe = TrainingRecipe("mnist", "fast_cnn", name, defense, ONCE)
    assert parse_recipe(describe(recipe), "it") == recipe
    checkpoints.save(tmp_path / "mnist" / "it.safetensors", model, metadata(recipe, trainer), half=False)
    again = load_model("zoo:mnist/it")
    x, _, draws = batch()
    assert is_stochastic(again) == is_stochastic(model)
    torch.testing.assert_close(call(again, x, draws[:]), call(model, x, draws[:]), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(call(rebuild("fast_cnn", defense), x, draws[:]), call(model, x, draws[:]), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in reading.names("zoo") if "resnet18" not in name])
def test_what_a_zoo_recipe_deploys_is_small_and_answers(name: str) -> None:
    recipe = parse_recipe(reading.read(reading.find("zoo", name), {}), name)
    model = rebuild(recipe.architecture, recipe.defense)
    assert sum(value.numel() for value in model.state_dict().values()) * 2 < 690_000  # bytes in half precision
    x = open_data(recipe.data, source="bundled", n=2)
    logits = call(model, x[:], Draws(0, x.ids))
    assert logits.shape in ((2, 10), (2, 11)) and logits.isfinite().all()


# the trainer


def test_an_average_of_weights_is_what_is_kept_and_validated() -> None:
    decay, met = 0.5, []

    @dataclasses.dataclass(frozen=True)
    class Watched(Undefended):
        def step(self, net: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, draws: Draws) -> Tensor:
            loss = super().step(net, x, y, optimizer, draws)
            met.append(copy.deepcopy(net.state_dict()))
            return loss

    start = tiny_net().state_dict()
    average = {name: value.clone() for name, value in start.items()}
    net, trainer = fit(Watched(), dataclasses.replace(TINY, average=decay))
    for done, state in enumerate(met):
        share = min(decay, (1 + done) / (10 + done))
        for name, value in state.items():
            average[name] = share * average[name] + (1 - share) * value if value.is_floating_point() else value
    assert len(met) == 15
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=1e-4, atol=1e-5)
    held = digits(200)
    assert trainer.history[-1]["clean"] == pytest.approx(accuracy(net, held[160:], held.labels[160:]))
    assert_equal_weights(net, fit(Undefended())[0], equal=False)


@pytest.mark.parametrize("recipe", [Undefended(), AdversarialTraining(threat="linf:0.1", steps=1)])
def test_an_interrupted_average_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, recipe: AdversarialTraining | Undefended
) -> None:
    plan = dataclasses.replace(TINY, average=0.9)
    whole, _ = fit(recipe, plan)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, plan, folder=tmp_path, progress=Killed(epoch=2))
    progress = Lines()
    resumed, _ = fit(recipe, plan, folder=tmp_path, progress=progress)
    assert progress.lines[0] == "resumed after epoch 1 of 3"
    assert_equal_weights(whole, resumed)


def test_an_average_that_means_nothing_is_refused() -> None:
    for value in (1.0, -0.1):
        with pytest.raises(ConfigError, match=f"average is {value}"):
            Schedule(average=value)


# free adversarial training


def test_free_training_moves_weights_and_perturbation_in_every_pass() -> None:
    (x, y, draws), net, twin = batch(), build_model("fast_cnn", seed=1), build_model("fast_cnn", seed=1)
    recipe = AdversarialTraining(threat="linf:0.1", method="free", steps=3)
    recipe.step(net, x, y, torch.optim.SGD(net.parameters(), 0.1), draws[:])
    optimizer, x_adv = torch.optim.SGD(twin.parameters(), 0.1), recipe.ball.start(x, draws[:])
    for _ in range(3):
        leaf = x_adv.clone().requires_grad_()
        optimizer.zero_grad()
        F.cross_entropy(twin(leaf), y).backward()
        optimizer.step()
        assert leaf.grad is not None
        x_adv = (leaf.detach() + 0.1 * leaf.grad.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_free_training_raises_robust_accuracy() -> None:
    found = {}
    recipes: dict[str, Recipe] = {
        "none": Undefended(),
        "free": AdversarialTraining(threat="linf:0.1", method="free", steps=3),
    }
    for name, recipe in recipes.items():
        net, _ = fit(recipe, PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
        test = digits(200, "test")
        judge = AdversarialTraining(threat="linf:0.1")
        robust = judge.validate(net, test[:], test.labels, Draws(3, test.ids))
        assert robust is not None
        found[name] = robust
    assert found["free"] > found["none"] + 0.15


# label smoothing and gradient regularisation


def test_label_smoothing_is_cross_entropy_against_soft_targets() -> None:
    (x, y, draws), net = batch(), build_model("fast_cnn", seed=1)
    target = 0.8 * F.one_hot(y, 10) + 0.02
    by_hand = -(target * net(x).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(LabelSmoothing(0.2).loss(net, x, y, draws), by_hand)


def test_smoothed_training_is_less_certain() -> None:
    peak = {}
    for smoothing in (0.0, 0.4):
        net, _ = fit(LabelSmoothing(smoothing), PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
        test = digits(200, "test")
        assert accuracy(net, test[:], test.labels) > 0.8
        peak[smoothing] = net(test[:]).softmax(1).amax(1).mean().item()
    assert peak[0.4] < peak[0.0] - 0.1


def test_the_penalty_is_the_squared_input_gradient() -> None:
    (x, y, draws) = batch()
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()
    x = x.double()
    p = net(x).softmax(1) - F.one_hot(y, 10)
    slope = p @ net[1].weight
    by_hand = F.cross_entropy(net(x), y) + 3 * slope.square().sum(1).mean()
    torch.testing.assert_close(GradientRegularisation(3.0).loss(net, x, y, draws), by_hand)
    assert not x.requires_grad


def test_a_penalty_flattens_the_loss() -> None:
    size = {}
    for strength in (0.0, 10.0):
        recipe = GradientRegularisation(strength)
        net, _ = fit(recipe, PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
        x, y = digits(200, "test")[:].requires_grad_(), digits(200, "test").labels
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
        size[strength] = slope.flatten(1).norm(dim=1).mean().item()
        assert accuracy(net, x, y) > 0.6
    assert size[10.0] < 0.7 * size[0.0]


# noise layers


def test_every_convolution_gets_noise_of_its_size() -> None:
    seen = []

    class Ear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    net = NoisyNet(build_model("fast_cnn", seed=0), 0.3, 0.05, learnt=False, passes=1).eval()
    layers = [module for module in net.modules() if isinstance(module, Noisy)]
    assert len(layers) == 2
    clean = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: clean.append(inputs[0]))
        layer.layer = nn.Sequential(Ear(), layer.layer)
    x, _, draws = batch(40)
    net(x, draws)
    for noisy, plain, size in zip(seen, clean, (0.3, 0.05), strict=True):
        assert (noisy - plain).std().item() == pytest.approx(size, rel=0.02)
    correlation = torch.corrcoef(torch.stack([(a - b).flatten()[:30000] for a, b in zip(seen, clean, strict=True)]))
    assert correlation[0, 1].abs() < 0.03
    assert all(layer.draws is None for layer in layers)


def test_a_learnt_amplitude_counts_standard_deviations_and_is_trained() -> None:
    x, _, draws = batch(4)
    layer = Noisy(nn.Identity(), 0.25, learnt=True)
    layer.draws = draws[:]
    noise = draws[:].normal(*x.shape[1:])
    torch.testing.assert_close(layer(x), x + 0.25 * x.flatten(1).std(1).view(-1, 1, 1, 1) * noise)
    defense = NoiseLayers(first=0.25, inner=0.25, learnt=True, threat="linf:0.1", steps=1)
    model, trainer = built(defense, n=300)
    amplitudes = [float(module.amplitude) for module in model.modules() if isinstance(module, Noisy)]
    assert all(abs(amplitude - 0.25) > 1e-5 for amplitude in amplitudes) and "robust" in trainer.history[0]


def test_noise_in_layers_is_the_samples_own_and_passes_are_averaged() -> None:
    net, (x, _, draws) = build_model("fast_cnn", seed=0).double(), batch()
    x = x.double()
    model = NoisyNet(net, 0.5, 0.5, learnt=False, passes=3).eval()
    whole, rows = model(x, draws[:]), torch.tensor([5, 2])
    torch.testing.assert_close(model(x[rows], draws[rows]), whole[rows])
    assert torch.equal(model(x, draws[:]), whole) and not torch.equal(model(x, draws.stream("other")), whole)
    model.passes = 1
    each = [model._once(x, draws.stream(k)).softmax(1) for k in range(3)]
    torch.testing.assert_close(whole, torch.stack(each).mean(0).log())
    leaf = x.requires_grad_()
    assert torch.autograd.grad(model(leaf, draws[:])[:, 0].sum(), leaf)[0].abs().sum() > 0


def test_training_with_noise_in_layers_gives_accuracy_under_it() -> None:
    test, found = digits(200, "test"), {}
    plain, _ = fit(Undefended(), PLAN, images=digits(1000), net=build_model("fast_cnn", seed=0))
    trainer = TrainingLoop(digits(1000), PLAN, progress=Progress())
    models: dict[str, nn.Module] = {
        "none": NoisyNet(plain, 1.0, 0.8, learnt=False, passes=1).eval(),
        "layers": NoiseLayers(first=1.0, inner=0.8).build(build_model("fast_cnn", seed=0), trainer, NUMBER),
    }
    for name, model in models.items():
        with torch.no_grad():
            found[name] = (model(test[:], Draws(3, test.ids)).argmax(1) == test.labels).double().mean().item()
    assert found["layers"] > found["none"] + 0.05 and found["layers"] > 0.4


# ensemble and autoencoder


def test_an_ensemble_is_the_mean_probability_of_nets_that_differ() -> None:
    model, _ = built(Ensemble(members=3), n=300)
    x, _, draws = batch()
    each = torch.stack([member(x).softmax(1) for member in model.members])
    torch.testing.assert_close(model(x, draws).exp(), each.mean(0))
    assert (each[0] - each[1]).abs().max() > 0.01 and (each[1] - each[2]).abs().max() > 0.01
    again, _ = built(Ensemble(members=3), n=300)
    assert_equal_weights(model, again)
    first, _ = fit(Undefended(), ONCE, images=digits(300), net=build_model("fast_cnn", seed=0))
    assert_equal_weights(model.members[0], first)  # without augmentation the draws have no part in it


def test_an_autoencoder_takes_noise_away_and_leaves_the_network_alone() -> None:
    plan = dataclasses.replace(PLAN, epochs=6)
    model, _ = built(Autoencoder(amplitude=0.3), plan, n=1000)
    plain, _ = fit(Undefended(), plan, images=digits(1000), net=build_model("fast_cnn", seed=0))
    assert_equal_weights(model.net, plain)
    assert all(weight.requires_grad for weight in model.parameters())
    test = digits(100, "test")
    noisy = (test[:] + 0.3 * Draws(4, test.ids).normal(1, 28, 28)).clamp(0, 1)
    with torch.no_grad():
        cleaned = model.steps[0](noisy)
    assert (cleaned - test[:]).square().mean() < 0.6 * (noisy - test[:]).square().mean()
    assert cleaned.min() >= 0 and cleaned.max() <= 1
    assert accuracy(model, test[:], test.labels) > 0.6


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 32)])
def test_a_denoiser_is_differentiable_and_keeps_the_shape(channels: int, size: int) -> None:
    x = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)).double()
    denoiser = Denoiser(channels, 2).double()
    assert denoiser(x).shape == x.shape and denoiser.surrogate is None
    corner = x[:, :, :2, :2].contiguous().requires_grad_()
    border = (0, size - 2, 0, size - 2)
    assert torch.autograd.gradcheck(lambda corner: denoiser(F.pad(corner, border)).sum((1, 2, 3)), corner)


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (LabelSmoothing, {"smoothing": 1.0}, "smoothing is 1.0"),
        (GradientRegularisation, {"strength": -1.0}, "strength is -1.0"),
        (Ensemble, {"members": 1}, "members is 1"),
        (Autoencoder, {"width": 0}, "width is 0"),
        (Autoencoder, {"kind": "pink"}, "pink"),
        (NoiseLayers, {"inner": -0.1}, "inner is -0.1"),
        (NoiseLayers, {"passes": 0}, "passes is 0"),
        (AdversarialTraining, {"method": "free", "gamma": 0.1}, "free training takes neither"),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind: type[Any], settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)
