"""What a dry run says a grid costs, beside what it costs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.audit.retrying import passes
from robustbench_local.cli.preview import show_preview
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.progress import Progress
from robustbench_local.grids import bench, pace, trials
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.pace import Pace
from robustbench_local.grids.preview import preview
from robustbench_local.grids.price import Estimate, Load, known_works, work
from robustbench_local.grids.run import measured, run_grid
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row

GRID = """
data: mnist
source: bundled
n: 120
models: ["zoo:mnist/none", "zoo:mnist/adversarial_training"]
attacks: [fgsm, {pgd: {steps: 10}}, {fmn: {steps: 10, threat: "l2:2"}}, {square: {steps: 60}}]
threats: ["linf:0.2"]
device: cpu
"""
RANDOM = ["none", {"noise_fusion": {"training": False, "amplitude": 0.1}}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "priced.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(**overrides: Any) -> Grid:
    return Grid.open("priced.yaml", overrides, Progress())


def estimates(grid: Grid) -> list[Estimate]:
    """Of its cells, by a few of their images."""
    found = []
    for group in grid.groups:
        model = grid.builder.build(group.spec)
        speed = Pace.of(model, grid.images[group.spec.data, None])
        tasks = [grid.task(cell, weights_digest(model)) for cell in group.cells]
        found += [Estimate.of(task, model, speed, trained=True) for task in tasks]
    return found


@pytest.mark.slow
def test_passes_are_foreseen_where_images_fall_early() -> None:
    """Of a model that falls at once, of one that does not, and of an attack that lets none go."""
    grid = opened()
    foreseen = [estimate.passes for estimate in estimates(grid)]
    for expected, row in zip(foreseen, measured(grid), strict=True):
        assert 1 / 1.5 < expected / passes(row) < 1.5, (row.model, row.attack, expected, passes(row))


def test_without_a_trial_they_would_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above catches an estimate in which no image falls."""
    grid = opened(models=["zoo:mnist/none"], attacks=[{"pgd": {"steps": 40}}])
    monkeypatch.setattr(trials, "pilot", lambda *_, **__: None)
    (estimate,) = estimates(grid)
    (row,) = measured(grid)
    assert estimate.passes > 2 * passes(row)


def test_draws_are_paid_for_and_the_undefended_part_is_attacked_too() -> None:
    grid = opened(models=["mnist_small"], defenses=RANDOM, attacks=[{"pgd": {"steps": 5}}], n=20, eot=4)
    alone, noisy = estimates(grid)
    assert noisy.passes >= 20 * 4 * 10 and noisy.passes > 3 * alone.passes
    for expected, row in zip((alone, noisy), measured(grid), strict=True):
        assert 1 / 1.5 < expected.passes / passes(row) < 1.5


def test_a_row_of_the_same_attack_says_how_early_images_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = measured(opened(models=["zoo:mnist/none"], attacks=[{"pgd": {"steps": 40}}], n=40))
    monkeypatch.setattr(trials, "pilot", lambda *_, **__: None)
    seen: list[Row | None] = []
    honest = Estimate.of

    def noted(*given: Any, before: Row | None = None, **more: Any) -> Estimate:
        seen.append(before)
        return honest(*given, before=before, **more)

    monkeypatch.setattr(Estimate, "of", noted)
    other = opened(models=["zoo:mnist/none"], attacks=[{"pgd": {"steps": 40}}, {"pgd": {"steps": 39}}])
    preview(other)
    assert [before and before.key for before in seen] == [row.key, None]


@pytest.mark.slow
def test_seconds_are_within_a_factor_of_one_and_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU seconds, so that what runs beside is of no account; the audit's are said to be the audit's."""
    spent = {"cells": 0.0, "audits": 0.0}

    def timed(name: str, what: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            started = time.process_time()
            try:
                return what(*given, **more)
            finally:
                spent[name] += time.process_time() - started

        return call

    for name, part in (("cells", "execute"), ("audits", "audit_and_keep")):
        monkeypatch.setattr(bench, part, timed(name, getattr(bench, part)))
    grid = opened(n=500, attacks=["fgsm", {"pgd": {"steps": 20}}])
    rows = preview(grid)
    measured(grid)
    cells, audits = sum(row["seconds"] for row in rows), sum(row["audit"] for row in rows)
    assert 1 / 1.5 < (cells + audits) / sum(spent.values()) < 1.5, (cells, audits, spent)
    assert spent["audits"] < spent["cells"] / 5 and audits < cells / 4


# attacks that do not say


class Silent(Attack):
    """Asks as often as it likes."""

    access = Access.SCORES

    def __call__(self, oracle: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        for _ in range(3):
            oracle.logits(x)
        return x


class Endless(Silent):
    def __call__(self, oracle: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        while True:
            oracle.logits(x)


def silent(grid: Grid, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """The same grid with its first cell's attack another."""
    vars(grid.cells[0])["attack"] = attack
    monkeypatch.setattr(trials, "MOMENT", 0.05)
    return grid


def test_an_attack_that_does_not_say_its_cost_is_not_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = silent(opened(models=["zoo:mnist/none"], attacks=["fgsm", {"pgd": {"steps": 2}}]), Endless(), monkeypatch)
    rows = preview(grid)
    assert [(row["forwards"], row["seconds"] is None) for row in rows] == [(None, True), (2, False)]
    show_preview(rows)
    shown = capsys.readouterr().out
    assert shown.count("unknown") == 2 and "and 1 cell that nobody can tell of" in " ".join(shown.split())


def test_what_it_asks_of_a_few_images_tells_if_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = silent(opened(models=["zoo:mnist/none"], attacks=["fgsm"]), Silent(), monkeypatch)
    (row,) = preview(grid)
    assert row["forwards"] is None and row["seconds"] > 0
    (estimate,) = estimates(grid)
    assert 120 * 3 < estimate.passes < 120 * 7


# what orders cells


def test_work_is_counted_and_not_timed() -> None:
    grid = opened(models=["mnist_small"], defenses=RANDOM, attacks=["fgsm", {"pgd": {"steps": 10}}])
    _images, (plain, noisy) = grid.images["mnist", None], grid.groups
    loads = [Load.of(grid.builder.build(group.spec), 10) for group in grid.groups]
    assert loads[0] == Load.of(grid.builder.build(plain.spec), 10)
    assert loads[0].parameters > 1e3 and loads[0].classes == 10
    single, iterated = (work(cell, loads[0], 50) for cell in plain.cells)
    assert single == loads[0].parameters * 50 * (1 + 2 + 3) and iterated == loads[0].parameters * 50 * (10 + 20 + 3)
    assert work(plain.cells[0], loads[0], 100) == 2 * single
    assert work(noisy.cells[0], loads[1], 50) > 10 * single


def test_unknown_work_counts_as_the_mean_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = silent(opened(models=["zoo:mnist/none"], attacks=["fgsm"]), Silent(), monkeypatch)
    assert math.isnan(work(grid.cells[0], Load(1, 10, False), 5))
    assert known_works([1.0, math.nan, 3.0]) == [1.0, 2.0, 3.0] and known_works([math.nan]) == [1.0]


def test_a_done_cell_costs_nothing_more_and_its_model_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    about: dict[str, Any] = {"models": ["zoo:mnist/none"], "attacks": ["fgsm"], "n": 8}
    run_grid("priced.yaml", **about)
    sizes = timed_batches(monkeypatch)
    (row,) = run_grid("priced.yaml", **about, dry_run=True)
    assert (row["status"], row["seconds"], row["audit"]) == ("done", 0.0, 0.0)
    assert {*sizes} == {1}


def timed_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the batches have whose passes are timed from now on."""
    sizes: list[int] = []
    honest = pace._measured

    def noted(model: Any, x: Any, *given: Any, **more: Any) -> Any:
        sizes.append(len(x))
        return honest(model, x, *given, **more)

    monkeypatch.setattr(pace, "_measured", noted)
    return sizes


def test_a_dear_models_pace_is_that_of_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, sizes = opened(models=["zoo:mnist/none"], attacks=["fgsm"]), timed_batches(monkeypatch)
    model, images = grid.builder.build(grid.groups[0].spec), grid.images["mnist", None]
    whole = Pace.of(model, images)
    monkeypatch.setattr(pace, "WARM", 0.0)
    few = Pace.of(model, images)
    assert sizes == [1, 120, 1, pace.LEAST] and few.size == whole.size == 120
