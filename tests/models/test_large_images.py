"""Every plug-in on images that are not square, and on 224 and 299 pixels: it runs, and nothing silly comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_local.config.plugins import ATTACKS, DEFENSES, find_attack, find_defense, listing
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import NoTraining
from robustbench_local.evaluation.evaluate import evaluate
from tests.helpers.small_networks import AnySize

THREATS = {"linf": "linf:2/255", "l2": "l2:0.1", "l1": "l1:2", "l0": "l0:4", "none": "none"}
FAMILIES = {"art", "foolbox", "torchattacks", "pyautoattack"}  # other packages' attacks, given by name
OTHERS = {"replay", "transfer", "autoattack"}  # of rows, of models of a data set, of attacks that are here themselves
FEW: dict[str, dict[str, Any]] = {  # enough to pass every line
    "adba": {"steps": 3},
    "best": {"effort": 0.02},
    "boundary": {"steps": 3},
    "hopskipjump": {"steps": 2},
    "jsma": {"gamma": 0.002},
    "nearest": {"passes": 101},
    "one_pixel": {"population": 8, "generations": 2},
    "patch": {"images": 6, "epochs": 1},
    "universal": {"images": 6, "epochs": 1},
    "sparse_autoattack": {"steps": 4, "queries": 4},
    "substitute": {"seeds": 6, "rounds": 2},
    "spatial": {"rotations": 3, "translations": 3},
}
SIZES = [(3, 40, 56), (1, 28, 40)]
LARGE = [(3, 224, 224), (3, 299, 299), (3, 224, 160)]


def attacks() -> dict[str, Attack]:
    """By name, with settings that end soon."""
    found = {}
    for row in listing(ATTACKS):
        if row.name in FAMILIES | OTHERS:
            continue
        settings = FEW.get(row.name, {"steps": 3} if "steps" in row.settings else {})
        found[row.name] = find_attack(row.name, settings)
    return found


ALL = attacks()
NATURAL = [name for name, attack in ALL.items() if isinstance(attack, Corruption)]
ATTACKING = [
    name for name in ALL if name not in NATURAL and name != "autoattack"
]  # of attacks that are here themselves


def network(channels: int) -> AnySize:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AnySize(channels).eval()


def images(size: tuple[int, int, int], n: int = 3, seed: int = 0) -> Tensor:
    coarse = torch.rand(n, size[0], 5, 5, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, size[1:], mode="bilinear") * 255).round() / 255


def attacked(name: str, size: tuple[int, int, int]) -> None:
    net, x, own = network(size[0]), images(size), images(size, 6, 1)
    y, theirs = net(x).argmax(1), net(own).argmax(1)
    for norm in ["linf"] if name == "substitute" else sorted(ALL[name].norms):  # its white box is FGSM
        threat = THREATS[norm]
        if name == "patch" and norm == "l0":
            threat = "l0:36"
        verdict = evaluate(net, x, y, ALL[name], threat, attacker=(own, theirs))
        assert verdict.x_adv.shape == x.shape and verdict.clean.all()
        assert not any(flag.startswith(("nan", "outside_ball")) for flag in verdict.flags), verdict.flags
        assert ThreatModel.parse("none").contains(verdict.x_adv, x).all()


def corrupted(name: str, size: tuple[int, int, int]) -> None:
    x, corruption = images(size), ALL[name]
    assert isinstance(corruption, Corruption)
    for severity in (1, 5):
        found = replace(corruption, severity=severity).apply(x, Draws(0, torch.arange(len(x))))
        assert found.shape == x.shape and found.isfinite().all() and found.min() >= 0 and found.max() <= 1
        assert torch.allclose(found * 255, (found * 255).round(), atol=1e-4)


def defended(name: str, size: tuple[int, int, int]) -> None:
    x = images(size).requires_grad_()
    settings = {"randomized_smoothing": {"samples": 12}, "ensemble": {"members": 2}}.get(name, {})
    model = find_defense(name, settings).build(network(size[0]), NoTraining(), Draws(0, torch.arange(1))).eval()
    logits = call(model, x, Draws(0, torch.arange(len(x))))
    assert len(logits) == len(x) and logits.isfinite().all()
    assert torch.autograd.grad(logits.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("name", ATTACKING)
def test_an_attack_takes_images_that_are_not_square(name: str) -> None:
    for size in SIZES:
        attacked(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("name", ATTACKING)
def test_an_attack_takes_large_images(name: str, size: tuple[int, int, int]) -> None:
    attacked(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("name", NATURAL)
def test_a_corruption_takes_large_images(name: str, size: tuple[int, int, int]) -> None:
    corrupted(name, size)


@pytest.mark.parametrize("name", NATURAL)
def test_a_corruption_takes_images_that_are_not_square(name: str) -> None:
    for size in [*SIZES, (3, 64, 80)]:
        corrupted(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES)])
def test_a_defense_takes_large_images(name: str, size: tuple[int, int, int]) -> None:
    defended(name, size)


@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES)])
def test_a_defense_takes_images_that_are_not_square(name: str) -> None:
    defended(name, (3, 40, 56))
