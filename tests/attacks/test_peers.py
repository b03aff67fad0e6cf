"""Beside other people's attacks, on the same model with the same settings in the same process, and on their weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.core.errors import DataError
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model
from robustbench_local.models.zoo import zoo_names

STEPS = 40
ALLOWED = 0.005  # how many more than a peer we may leave robust


@pytest.fixture(autouse=True)
def _kept_random_state() -> Iterator[None]:
    with torch.random.fork_rng():  # peers draw from the global generator
        torch.manual_seed(0)
        yield


def peer(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: the comparison with it is left out")


@cache
def trained() -> nn.Module:
    """fast_cnn after some epochs of FGSM training on the bundled digits: robust enough that not all are broken."""
    x, y = load_data("mnist", split="train", source="bundled")
    model = build_model("fast_cnn").train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        for rows in torch.randperm(len(x), generator=generator).split(100):
            leaf = x[rows].requires_grad_()
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y[rows]), leaf)
            near = (x[rows] + 0.1 * slope.sign()).clamp(0, 1)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(near), y[rows]).backward()
            optimiser.step()
    return model.eval().requires_grad_(False)


def zoo(name: str) -> nn.Module:
    if name not in zoo_names():
        pytest.skip(f"zoo:{name} is not in this copy: it is made by `python -m experiments.train zoo={name}`")
    return load_model(f"zoo:{name}")


CASES = [
    pytest.param(trained, "mnist", 200, "linf", 0.12, id="trained-linf"),
    pytest.param(trained, "mnist", 200, "l2", 1.5, id="trained-l2"),
    pytest.param(lambda: zoo("mnist/adversarial_training"), "mnist", 100, "linf", 0.3, id="zoo-mnist"),
    pytest.param(
        lambda: zoo("cifar10/adversarial_training"),
        "cifar10",
        200,
        "linf",
        8 / 255,
        id="zoo-cifar10",
        marks=pytest.mark.slow,
    ),
]


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    module = peer("torchattacks")
    kind = module.PGD if norm == "linf" else module.PGDL2
    images: Tensor = kind(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS)(x, y)
    return images


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    module = peer("foolbox")
    kind = module.attacks.LinfPGD if norm == "linf" else module.attacks.L2PGD
    attack = kind(abs_stepsize=2.5 * eps / STEPS, steps=STEPS)
    images: Tensor = attack(module.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)[1]
    return images


@pytest.mark.parametrize("theirs", [torchattacks_pgd, foolbox_pgd])
@pytest.mark.parametrize(("make", "data", "count", "norm", "eps"), CASES)
def test_pgd_leaves_no_more_robust_than_theirs(
    make: Callable[[], nn.Module],
    data: str,
    count: int,
    norm: str,
    eps: float,
    theirs: Callable[[nn.Module, Tensor, Tensor, str, float], Tensor],
    record_property: Callable[[str, object], None],
) -> None:
    model = make()
    x, y = load_data(data, n=count, source="bundled")
    images = theirs(model, x, y, norm, eps)
    with torch.no_grad():
        robust = model(images).argmax(1) == y
    verdict = evaluate(model, x, y, "pgd", f"{norm}:{eps}", steps=STEPS)
    record_property("robust after ours, after theirs", (verdict.robust_accuracy, robust.double().mean().item()))
    assert verdict.clean_accuracy - verdict.robust_accuracy > 0.03  # the attack has something to do
    more = (verdict.robust & ~robust).sum().item() - (robust & ~verdict.robust).sum().item()
    luck = 2 * (verdict.robust ^ robust).sum().item() ** 0.5  # of two random starts, two deviations (McNemar)
    assert more <= ALLOWED * count + luck


def same_images(ours: Verdict, theirs: Tensor) -> bool:
    """Of the images that were attacked; where a gradient is all but zero, its sign is anybody's."""
    differ = (ours.x_adv - theirs).abs()[ours.clean] > 1e-6
    return differ.double().mean().item() < 1e-3


def test_fgsm_makes_the_same_images() -> None:
    model, eps = trained(), 0.1
    x, y = load_data("mnist", n=200, source="bundled")
    ours = evaluate(model, x, y, "fgsm", f"linf:{eps}")
    assert not same_images(ours, x) and not same_images(ours, 2 * x - ours.x_adv)
    assert same_images(ours, peer("torchattacks").FGSM(model, eps=eps)(x, y))
    foolbox = peer("foolbox")
    fast = foolbox.attacks.LinfFastGradientAttack()
    assert same_images(ours, fast(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)[1])


def reference(file: str, architecture: str) -> nn.Module:
    folder = os.environ.get("ROBUSTBENCH_LOCAL_REFERENCE")
    if folder is None or not (path := Path(folder) / file).exists():
        pytest.skip(f"no {file}: ROBUSTBENCH_LOCAL_REFERENCE names the folder of published weights")
    return load_model(architecture, weights=path, allow_pickle=True)


def digits(count: int) -> tuple[Tensor, Tensor]:
    if count <= 1000:
        return load_data("mnist", n=count, source="bundled")
    try:
        return load_data("mnist")
    except DataError as error:
        pytest.skip(f"the whole test set is not here: {error}")


def points(share: float) -> float:
    return 100 * share


TRADES = dict(attack="pgd", threat="linf:0.3", steps=40, step_size=0.01, random_start=False)
FAST = dict(attack="pgd", threat="linf:0.3", steps=50, step_size=0.01, restarts=10)


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_published_trades_weights(count: int, record_property: Callable[[str, object], None]) -> None:
    """Zhang et al. 2019: clean 99.48, PGD-40 96.07 judged on the last iterate, AutoAttack 92.81 (10,000 images)."""
    model = reference("trades_mnist_smallcnn.pt", "trades_cnn")
    x, y = digits(count)
    last = evaluate(model, x, y, count="last", **TRADES)  # type: ignore[arg-type]
    every = evaluate(model, x, y, **TRADES)  # type: ignore[arg-type]
    record_property("last iterate, every iterate", (last.robust_accuracy, every.robust_accuracy))
    spread = 0.3 if count == 10_000 else 4  # points; two standard errors of a small sample
    assert abs(points(last.clean_accuracy) - 99.48) < spread / 3
    assert abs(points(last.robust_accuracy) - 96.07) <= spread
    assert every.robust_accuracy <= last.robust_accuracy


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_published_fast_weights(count: int, record_property: Callable[[str, object], None]) -> None:
    """Wong et al. 2020: clean 98.50, PGD of 50 steps and 10 restarts 88.77, AutoAttack 82.93 (10,000 images)."""
    model = reference("fast_mnist_fgsm.pth", "fast_cnn")
    x, y = digits(count)
    verdict = evaluate(model, x, y, **FAST)  # type: ignore[arg-type]
    record_property("clean, robust", (verdict.clean_accuracy, verdict.robust_accuracy))
    spread = 0.3 if count == 10_000 else 4
    assert abs(points(verdict.clean_accuracy) - 98.50) < max(0.01, spread / 2)
    assert points(verdict.robust_accuracy) <= 88.77 + spread
    assert points(verdict.robust_accuracy) > 80
