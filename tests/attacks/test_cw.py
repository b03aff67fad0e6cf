"""Carlini and Wagner: the constant's search, confidence, early ends, and speed and strength beside peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.cw import CW
from robustbench_local.attacks.deepfool import DeepFool
from robustbench_local.attacks.ead import EAD
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.losses import margin
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model

FAR = "l2:100"


def mnist(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    x, y = load_data("mnist", n=count, source="bundled")
    return load_model("zoo:mnist/none"), x, y


@pytest.mark.parametrize(
    "attack",
    [CW(steps=60, searches=2, constant=10, step_size=0.1, abort_early=False), EAD(steps=60, searches=4, constant=1)],
)
def test_confidence_is_a_margin_and_costs_distance(attack: Attack) -> None:
    model, x, y = mnist(4)
    threat = FAR if isinstance(attack, CW) else "l1:700"
    distances = []
    for confidence in (0.0, 3.0):
        verdict = evaluate(model, x, y, type(attack)(**vars(attack) | {"confidence": confidence}), threat)
        assert not verdict.robust.any()
        assert (margin(model(verdict.x_adv), y) >= confidence - 1e-3).all()
        distances.append(verdict.distance)
    assert (distances[1] > distances[0]).all()


def test_more_searches_come_nearer() -> None:
    model, x, y = mnist(4)
    few: Any = dict(steps=60, constant=100, step_size=0.1, abort_early=False)
    found = [evaluate(model, x, y, CW(searches=k, **few), FAR) for k in (1, 4)]
    assert not found[0].robust.any() and (found[1].distance <= found[0].distance).all()
    assert found[1].distance.mean() < 0.9 * found[0].distance.mean()


def test_a_constant_that_is_too_small_grows_until_it_succeeds() -> None:
    model, x, y = mnist(4)
    few = evaluate(model, x, y, CW(steps=60, searches=2, constant=1e-6, step_size=0.1), FAR)
    many = evaluate(model, x, y, CW(steps=60, searches=9, constant=1e-6, step_size=0.1), FAR)
    assert few.robust.all() and not many.robust.any()
    assert few.forwards.max() < 120  # and it does not stay where it gets nowhere


def test_early_ends_cost_next_to_nothing() -> None:
    model, x, y = mnist(3)
    whole, early = (
        evaluate(model, x, y, CW(steps=200, searches=3, constant=1, step_size=0.1, abort_early=abort), FAR)
        for abort in (False, True)
    )
    assert early.forwards.double().mean() < 0.95 * whole.forwards.double().mean() and whole.forwards.eq(600).all()
    assert early.distance.median() < 1.01 * whole.distance.median()


@pytest.fixture(autouse=True)
def _kept_random_state() -> Iterator[None]:
    with torch.random.fork_rng():  # peers draw from the global generator
        torch.manual_seed(0)
        yield


def found(model: nn.Module, x: Tensor, y: Tensor, images: Tensor) -> Tensor:
    """(N,): L2 distance of what fooled the model; an all-black image is how Foolbox says that it found none."""
    with torch.no_grad():
        success = (model(images).argmax(1) != y) & images.flatten(1).any(1)
    return torch.where(success, (images - x).flatten(1).norm(dim=1), torch.inf)


def craft(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """As the judge has it done, without the judge: peers do not judge."""
    draws, threat = Draws(0, torch.arange(len(x))), ThreatModel.parse(FAR)
    return attack(Oracle(model, x, y, threat, attack.access, draws, minimises=True), x.clone(), y, threat, draws)


def torchattacks(name: str, **settings: Any) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    module = pytest.importorskip("torchattacks")
    return lambda model, x, y: getattr(module, name)(model, **settings)(x, y)


def foolbox(name: str, **settings: Any) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    module = pytest.importorskip("foolbox")
    attack = getattr(module.attacks, name)(**settings)
    return lambda model, x, y: attack(module.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=None)[0]


NEAR = 1.01  # a search of a thousand steps amplifies rounding: half a per cent either way, on single images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "count", "attack", "kind", "settings"),
    [
        ("cifar10/none", 20, CW(steps=50, searches=1, constant=5), "torchattacks:CW", dict(c=1, steps=50)),
        (
            "mnist/none",
            50,
            CW(steps=50, searches=1, constant=5, step_size=0.1),
            "torchattacks:CW",
            dict(c=1, steps=50, lr=0.1),
        ),
        (
            "cifar10/none",
            8,
            CW(steps=200, searches=5),
            "foolbox:L2CarliniWagnerAttack",
            dict(steps=200, binary_search_steps=5),
        ),
        ("mnist/none", 50, DeepFool(), "foolbox:L2DeepFoolAttack", {}),
        ("cifar10/none", 20, DeepFool(), "foolbox:L2DeepFoolAttack", {}),
        ("cifar10/none", 10, DeepFool(), "torchattacks:DeepFool", {}),
    ],
)
def test_no_farther_and_no_slower_than_peers(
    source: str,
    count: int,
    attack: Attack,
    kind: str,
    settings: dict[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    """One after the other, twice, in one process; CPU time, which other work on the machine leaves as it is."""
    model = load_model(f"zoo:{source}")
    x, y = load_data(source.split("/")[0], n=count, source="bundled")
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    house, name = kind.split(":")
    theirs = (torchattacks if house == "torchattacks" else foolbox)(name, **settings)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(2):
        with as_deployed(model):
            started = time.process_time()
            crafted = craft(attack, model, x, y)
            seconds["ours"].append(time.process_time() - started)
        started = time.process_time()
        images = theirs(model, x, y)
        seconds["theirs"].append(time.process_time() - started)
    mine, other = found(model, x, y, crafted), found(model, x, y, images)
    ratio = min(seconds["ours"]) / min(seconds["theirs"])
    record_property("median distance, theirs, time ratio", (mine.median().item(), other.median().item(), ratio))
    assert mine.median() <= NEAR * other.median()
    eps = other[other.isfinite()].median()
    assert (mine > NEAR * eps).double().mean() <= (other > eps).double().mean() + 0.005
    assert ratio <= 1
