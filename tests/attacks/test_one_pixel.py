"""One pixel: all changes of a pixel tried beside it, the evolution's parts by hand, and beside torchattacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, OptimizeResult, differential_evolution
from torch import Tensor, nn

from robustbench_local.attacks.one_pixel import Evolution, OnePixel, _latin_hypercube, _three_others, log_odds, painted
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.score_based import (
    Stubborn,
    company_changes_nothing,
    costs_what_it_says,
    pixels_that_matter,
    reaches_targets,
    stays_inside,
)

PRESETS = ["su2019", "best1bin"]


@dataclass(frozen=True)
class NoStep(OnePixel):
    def step(self, state: State, *rest: object) -> State:
        return state


@dataclass(frozen=True)
class WrongSign(OnePixel):
    def _fitness(self, genes: Tensor, oracle: Oracle, x: Tensor, y: Tensor) -> Tensor:
        return -super()._fitness(genes, oracle, x, y)


@dataclass(frozen=True)
class OneTooMany(OnePixel):
    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return super().init(oracle, x, y, ThreatModel(threat.norm, threat.eps + 1), draws, restart)


def fells_what_breakable(attack: OnePixel, pixels: int) -> bool:
    """Nothing beyond reach; within, all that needs no more than 0.97 of what the best corner colours give.

    rand/1 is slow to settle on more than one pixel: 0.75.
    """
    reach = 0.75 if pixels > 1 and attack.evolution.strategy == "rand1" else 0.97
    model, data, ratio = pixels_that_matter(20, pixels)
    verdict = Judge()(model, data, attack, ThreatModel.parse(f"l0:{pixels}"))
    assert verdict.clean.all() and (verdict.distance <= pixels).all()
    return bool(verdict.robust[ratio > 1].all()) and not verdict.robust[ratio < reach].any()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("pixels", [1, 2])
def test_what_breakable_falls_and_nothing_else(preset: str, pixels: int) -> None:
    assert fells_what_breakable(OnePixel(preset=preset, population=200, generations=60), pixels)
    for broken in (NoStep, WrongSign):
        assert not fells_what_breakable(broken(preset=preset, population=30, generations=60), pixels), broken


@cache
def small() -> nn.Module:
    """A network of one hidden layer on digits of 10x10, so small that all changes of one pixel can be tried."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(100, 24), nn.ReLU(), nn.Linear(24, 10))
    x, y = load_data("mnist", split="train", source="bundled")
    x = x[:, :, ::3, ::3].contiguous()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for rows in torch.randperm(len(x), generator=generator).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    return net.eval().requires_grad_(False)


def by_lead(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The images that are classified correctly, the least certain first."""
    with torch.no_grad():
        right = model(x).argmax(1) == y
        rows = log_odds(model(x[right]), y[right]).argsort()
    return x[right][rows], y[right][rows]


@cache
def tiny_digits() -> tuple[Tensor, Tensor]:
    x, y = load_data("mnist", n=400, source="bundled")
    x, y = by_lead(small(), x[:, :, ::3, ::3].contiguous(), y)
    return x[::6], y[::6]


def breakable(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) bool, by trying each of 256 grey levels in each place."""
    size, levels = x[0].numel(), torch.arange(256) / 255
    breakable = torch.zeros(len(x), dtype=torch.bool)
    for number, image in enumerate(x):
        for places in torch.arange(size).split(8):
            tried = image.flatten().repeat(len(places), 256, 1)
            tried[torch.arange(len(places)), :, places] = levels
            with torch.no_grad():
                breakable[number] |= (model(tried.view(-1, *image.shape)).argmax(1) != y[number]).any()
            if breakable[number]:
                break
    return breakable


def share_found(attack: OnePixel, model: nn.Module, x: Tensor, y: Tensor, truth: Tensor) -> float:
    """Of the images that can be broken; beyond 8-bit colours an attack may find one more."""
    found = ~evaluate(model, x, y, attack, "l0:1").robust
    assert truth.sum() >= 5 and (~truth).any()
    assert (found & ~truth).sum() <= 1
    return (found & truth).sum().item() / int(truth.sum())


def test_of_all_changes_of_one_pixel_it_finds_those_that_count() -> None:
    model, (x, y) = small(), tiny_digits()
    truth = breakable(model, x, y)
    for preset in PRESETS:
        assert share_found(OnePixel(preset=preset), model, x, y, truth) >= 0.95
        assert share_found(NoStep(preset=preset, population=20), model, x, y, truth) < 0.95


@cache
def digits_of_which_one_is_robust() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """(model, x, y, breakable): eight images can be broken and the ninth is robust, after 200,704 forward passes."""
    model = load_model("zoo:mnist/none")
    x, y = by_lead(model, *load_data("mnist", n=1000, source="bundled"))
    return model, x[:9], y[:9], breakable(model, x[:9], y[:9])


@pytest.mark.slow
def test_all_784_times_256_changes_of_a_digit(record_property: Callable[[str, object], None]) -> None:
    model, x, y, truth = digits_of_which_one_is_robust()
    record_property("can be broken", truth.tolist())
    assert share_found(OnePixel(), model, x, y, truth) >= 0.95


@pytest.mark.slow
def test_best1bin_finds_as_much_as_scipys_own(record_property: Callable[[str, object], None]) -> None:
    """best/1 gathers around the best member so soon that it may settle on a pixel that breaks no image: of these
    eight images one is missed in about a third of the runs, by SciPy's evolution at the published settings (17 of 51)
    as by ours (26 of 90). So of this preset 0.95 holds for what any of a few runs finds, and 0.9 for the mean run.
    """
    model, x, y, truth = digits_of_which_one_is_robust()
    x, y, seeds = x[truth], y[truth], range(6)
    ours = torch.stack([~evaluate(model, x, y, OnePixel(preset="best1bin"), "l0:1", seed=s).robust for s in seeds])
    theirs = torch.stack([torch.tensor([scipy_finds(model, x[k], y[k], s) for k in range(len(x))]) for s in seeds])
    record_property("runs that found each image, of ours, of SciPy's", (ours.sum(0).tolist(), theirs.sum(0).tolist()))
    luck = (ours.double().mean(0) - theirs.double().mean(0)).square().sum().sqrt() / len(x)
    assert ours.any(0).double().mean() >= 0.95 and ours.double().mean() >= 0.9
    assert float(ours.double().mean() - theirs.double().mean()) >= -max(0.005, 2 * float(luck))


def scipy_finds(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> bool:
    """Whether SciPy's differential evolution breaks the image (1, H, W) at the published settings."""

    def answers(genes: NDArray[np.float64]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(painted(x[None], torch.from_numpy(genes.T.copy()).float()[None])[0])
            return logits

    def stop(intermediate_result: OptimizeResult) -> None:
        if answers(intermediate_result.x[:, None]).argmax(1) != y:
            raise StopIteration

    def worst(genes: NDArray[np.float64]) -> Any:
        return log_odds(answers(genes), y.expand(genes.shape[1])).numpy()

    best = differential_evolution(
        worst,
        Bounds([0.0] * 3, [1.0] * 3),
        strategy="best1bin",
        maxiter=75,
        popsize=133,
        mutation=(0.5, 1),
        recombination=1,
        init="latinhypercube",
        tol=0,
        atol=-1,
        polish=False,
        updating="deferred",
        vectorized=True,
        seed=seed,
        callback=stop,
    )
    return bool(answers(best.x[:, None]).argmax(1) != y)


@pytest.mark.parametrize("kind", ["deterministic", "random"])
@pytest.mark.parametrize("preset", PRESETS)
def test_company_changes_nothing(preset: str, kind: str) -> None:
    attack = OnePixel(preset=preset, population=8, generations=4, crossover=0.7)
    company_changes_nothing(attack, ThreatModel.parse("l0:2"), kind)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threat", ["l0:1", "l0:3", "l0:50"])
def test_it_stays_inside(threat: str, channels: int) -> None:
    for preset in PRESETS:
        stays_inside(OnePixel(preset=preset, population=9, generations=6), ThreatModel.parse(threat), channels)
    if threat != "l0:50":
        with pytest.raises(AssertionError):
            stays_inside(OneTooMany(population=9, generations=6), ThreatModel.parse(threat), channels)


def test_cost_and_access() -> None:
    costs_what_it_says(OnePixel(population=6, generations=5), ThreatModel.parse("l0:1"))
    assert OnePixel().cost(10) == (400 * 101, 0) and OnePixel(preset="best1bin").cost(10) == (400 * 76, 0)


def test_a_small_budget_has_a_small_population() -> None:
    model, (x, y) = small(), tiny_digits()

    def left(budget: int, **settings: Any) -> float:
        return evaluate(model, x, y, OnePixel(**settings), "l0:1", budget=budget).robust_accuracy

    with pytest.warns(UserWarning, match="195 forward passes of an image, .* takes 400: nothing evolves below 800"):
        spent = left(200, population=400)  # the broken twin: the preset's own
    assert left(200) < spent - 0.2
    with pytest.warns(UserWarning, match="nothing evolves below 8"):
        left(5)


def test_a_large_budget_changes_nothing() -> None:
    model, (x, y) = small(), tiny_digits()
    free, bounded = (evaluate(model, x[:3], y[:3], OnePixel(generations=2), "l0:1", budget=b) for b in (None, 5000))
    assert torch.equal(free.x_adv, bounded.x_adv) and torch.equal(free.forwards, bounded.forwards)


def test_targets() -> None:
    reaches_targets(OnePixel(population=40, generations=15), ThreatModel.parse("l0:3"))


def test_the_presets() -> None:
    assert OnePixel().evolution == Evolution(400, 100, 0.5, 1.0, "rand1", "normal")
    assert OnePixel(preset="best1bin").evolution == Evolution(400, 75, (0.5, 1.0), 1.0, "best1", "latin_hypercube")
    changed = find_attack("one_pixel", {"preset": "best1bin", "f": 0.7, "generations": 3})
    assert isinstance(changed, OnePixel) and changed.steps == 3
    assert changed.evolution == Evolution(400, 3, 0.7, 1.0, "best1", "latin_hypercube")


@pytest.mark.parametrize(
    "settings",
    [
        dict(preset="su2020"),
        dict(pixels=0),
        dict(population=3),
        dict(generations=0),
        dict(f=0),
        dict(f=(1.0, 0.5)),
        dict(crossover=1.5),
        dict(strategy="best2"),
        dict(start="sobol"),
        dict(steps=5),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        find_attack("one_pixel", settings)


def test_pixels_are_those_of_the_threat_or_fewer() -> None:
    model, data, _ = pixels_that_matter(3, 1)
    attack = OnePixel(pixels=2, population=5, generations=2)
    with pytest.raises(ConfigError, match="pixels is 2, and the threat l0:1 allows 1"):
        evaluate(model, data.x, data.labels, attack, "l0:1")
    assert evaluate(model, data.x, data.labels, attack, "l0:3").distance.max() <= 2
    assert torch.equal(evaluate(model, data.x, data.labels, "one_pixel", "l0:0").x_adv, data.x)


def test_painting_by_hand() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pixel = torch.tensor([0.74, 0.99, 0.1, 0.2, 0.3])
    over = torch.tensor([0.70, 1.0, 0.6, 0.7, 0.8])  # the same place: row 2, column 4; the later one shows
    found = painted(x, torch.stack([torch.cat([pixel, over]), torch.cat([over, pixel])]).expand(2, 2, 10))
    expected = x[:, None].repeat(1, 2, 1, 1, 1)
    expected[:, 0, :, 2, 4], expected[:, 1, :, 2, 4] = over[2:], pixel[2:]
    assert torch.equal(found, expected)


def test_a_child_by_hand() -> None:
    """With four members base, b and c are the other three: the child is base + f (b - c) in one of their orders."""
    draws = Draws(0, torch.arange(300))
    genes = torch.tensor([0.40, 0.45, 0.52, 0.60]).view(1, 4, 1).expand(300, 4, 1)
    fitness = torch.tensor([0.0, 3.0, 1.0, 2.0]).expand(300, 4)
    values = genes[0, :, 0].tolist()
    for strategy in ("rand1", "best1"):
        child = Evolution(4, 1, 0.5, 1.0, strategy, "normal").offspring(genes, fitness, draws)[:, 0, 0]
        bases = {"rand1": (1, 2, 3), "best1": (1,)}[strategy]
        others = (1, 2, 3)
        could = [
            values[base] + 0.5 * (values[b] - values[c])
            for base in bases
            for b in others
            for c in others
            if b != c and (strategy == "best1" or base not in (b, c))
        ]
        near = (child[:, None] - torch.tensor(could)).abs() < 1e-6
        assert near.any(1).all() and near.any(0).all(), strategy


def test_the_three_others_are_others_and_equally_likely() -> None:
    chosen = torch.stack(_three_others(5, Draws(0, torch.arange(4000))), -1)  # (N, P, 3)
    me = torch.arange(5)[:, None].expand(4000, 5, 1)
    assert torch.cat([chosen, me], -1).sort(-1).values.diff(dim=-1).gt(0).all()
    for place in range(3):
        counts = torch.bincount(chosen[:, 0, place], minlength=5)
        assert counts[0] == 0 and counts[1:].sub(1000).abs().max() < 120


def test_crossover_and_dither() -> None:
    draws, genes = Draws(0, torch.arange(500)), torch.rand(500, 8, 10, generator=torch.Generator().manual_seed(0))
    fitness = torch.zeros(500, 8)
    kept = Evolution(8, 1, 0.5, 0.0, "rand1", "normal").offspring(genes, fitness, draws) == genes
    assert kept.sum(2).eq(9).all()  # one gene always comes from the mutant
    half = Evolution(8, 1, 0.5, 0.5, "rand1", "normal").offspring(genes, fitness, draws) == genes
    assert abs(half.double().mean().item() - 0.45) < 0.02
    narrow = genes * 0.1 + 0.45  # so that nothing leaves the cube
    child = Evolution(8, 1, (0.5, 1.0), 1.0, "best1", "normal").offspring(narrow, fitness, draws)
    best, spread = narrow[:, :1], (narrow[:, :, None] - narrow[:, None]).flatten(1, 2)
    ratio = ((child - best)[:, :, None] / spread[:, None])[..., 0].flatten(1)
    assert ((ratio > 0.5) & (ratio < 1)).any(1).all() and ((child >= 0) & (child <= 1)).all()


def test_a_latin_hypercube_has_one_of_each() -> None:
    genes = _latin_hypercube(7, 3, Draws(0, torch.arange(5)))
    assert torch.equal((genes * 7).long().sort(1).values, torch.arange(7)[None, :, None].expand(5, 7, 3))
    assert not torch.equal(genes[:, :, 0].argsort(1), genes[:, :, 1].argsort(1))


def test_log_odds_do_not_saturate() -> None:
    sure = torch.tensor([[40.0, 0.0], [50.0, 0.0]])
    assert sure.softmax(1)[0, 0] == sure.softmax(1)[1, 0] == 1
    assert log_odds(sure, torch.zeros(2).long()).tolist() == [40, 50]
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(log_odds(logits, torch.ones(50).long()), logits.softmax(1)[:, 1].logit(), atol=1e-5)


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, population: int, generations: int) -> Tensor:
    module = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    images: Tensor = module.OnePixel(model, steps=generations, popsize=population, inf_batch=1024)(x, y)
    return images


@pytest.mark.slow
def test_beside_torchattacks(record_property: Callable[[str, object], None]) -> None:
    model = small()
    x, y = tiny_digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torchattacks(model, x, y, 99, 20)
    robust = (model(images).argmax(1) == y).double().mean().item()
    for preset in PRESETS:
        verdict = evaluate(model, x, y, OnePixel(preset=preset, population=99, generations=20), "l0:1")
        record_property(f"robust after ours ({preset}), after theirs", (verdict.robust_accuracy, robust))
        assert verdict.robust_accuracy <= robust + 0.005, preset


@pytest.mark.slow
def test_a_generation_is_no_slower_than_torchattacks(record_property: Callable[[str, object], None]) -> None:
    """On many images at once, none of which is broken; the better of two runs of each."""
    model, generations = Stubborn(), 4
    x, y = load_data("mnist", n=60, source="bundled")
    y = torch.zeros_like(y)

    def seconds(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    attack = OnePixel(population=399, generations=generations)
    ours = min(seconds(lambda: evaluate(model, x, y, attack, "l0:1")) for _ in range(2))
    theirs = min(seconds(lambda: torchattacks(model, x, y, 399, generations)) for _ in range(2))
    record_property("time ratio", ours / theirs)
    assert ours <= theirs
