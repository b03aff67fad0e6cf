"""Optimality is the published formula, the budget is the meter's, and what is kept is not measured again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import optimality as benchmark
from benchmarks._adv_lib import AdvLib
from benchmarks._comparisons import ZOO, images_of, model_of
from benchmarks._kept import Row, kept
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm
from robustbench_local.evaluation.evaluate import evaluate


def by_the_curves(found: dict[str, Tensor], attack: str) -> float:
    """The definition: areas under step curves of robust accuracy, summed up in small steps of eps."""
    nearest = torch.stack(list(found.values())).amin(0)
    top = nearest[nearest.isfinite()].max()
    grid = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * top

    def above(distance: Tensor) -> float:
        robust = (distance[None] > grid[:, None]).double().mean(1)
        return float((1 - robust).mean())

    return above(found[attack]) / above(nearest)


def test_it_is_the_area_between_the_curves() -> None:
    generator = torch.Generator().manual_seed(0)
    found = {name: torch.rand(12, generator=generator, dtype=torch.float64) for name in "abc"}
    found["a"][:4] = torch.inf
    found["b"] += 5  # beyond all that counts
    shares = benchmark.optimality(found)
    for name in found:
        assert shares[name] == pytest.approx(by_the_curves(found, name), abs=1e-4)
    assert shares["b"] == 0 < shares["a"] < shares["c"] < 1
    alone = benchmark.optimality({"c": found["c"]})
    assert alone == {"c": 1}
    longer = benchmark.optimality(found | {"c": found["c"] * 1.1})  # the twin: another distance is another figure
    assert longer["c"] < shares["c"]


def test_without_a_curve_there_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no attack found any"):
        benchmark.optimality({"a": torch.tensor([torch.inf])})
    with pytest.raises(ValueError, match="one distance"):
        benchmark.optimality({"a": torch.tensor([2.0, 2.0])})


def test_more_passes_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PASSES", 20)
    row = benchmark.distances(ZOO[0], Norm.L2, "ddn", {"steps": 9}, 4)
    assert row["passes"] in (18, 19) and len(row["distances"]) == 4
    with pytest.raises(ValueError, match=r"ddn took 2\d passes of an image: allowed are 20"):
        benchmark.distances(ZOO[0], Norm.L2, "ddn", {"steps": 12}, 4)


@pytest.mark.parametrize("norm", list(benchmark.ATTACKS))
def test_every_attack_seeks_the_nearest_image_within_the_budget(norm: Norm) -> None:
    for name, settings in benchmark.ATTACKS[norm].items():
        attack = find_attack(name, settings)
        assert attack.minimises and norm in attack.norms
        assert sum(attack.cost(10, norm)) < benchmark.PASSES


def a_peer(
    model: nn.Module, inputs: Tensor, labels: Tensor, norm: float, num_steps: int = 1, far: float = 0.5
) -> Tensor:
    """A function as adversarial-library has them: asks often, and gives back what it likes."""
    for _ in range(num_steps):
        model((inputs + far).clamp(0, 1))
    return inputs * norm


def test_of_peers_only_the_installed_count_and_the_meter_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "release", lambda package: {"adv_lib": "1.0"}.get(package))
    assert [*benchmark.listed(Norm.L0)] == [*benchmark.ATTACKS[Norm.L0], "adv_lib:sigma_zero", "adv_lib:vfga"]
    monkeypatch.setattr(benchmark, "release", lambda package: None)
    assert benchmark.listed(Norm.L0) == benchmark.ATTACKS[Norm.L0]
    monkeypatch.setitem(sys.modules, "adv_lib.attacks", SimpleNamespace(peer=a_peer))
    x, y = images_of("mnist", 4, "cpu")
    found = benchmark.distances(ZOO[0], Norm.L2, "adv_lib:peer", {"num_steps": 5, "far": 0.9}, 4)
    assert 5 <= found["passes"] <= 7
    asked = evaluate(model_of(ZOO[0], "cpu"), x, y, AdvLib("peer", {"far": 0.9}), "l2:100")
    assert not asked.robust.all() and asked.distance[~asked.robust].min() > 1  # what it asked about, not what it gave
    monkeypatch.setattr(benchmark, "PASSES", 5)
    with pytest.raises(ValueError, match=r"adv_lib:peer took \d+ passes of an image: allowed are 5"):
        benchmark.distances(ZOO[0], Norm.L2, "adv_lib:peer", {"num_steps": 9}, 4)


def test_adversarial_library_is_given_images_that_it_can_change_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept_in_place(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """As its projections work: through a view that is flat, which is a copy where channels come last."""
        inputs.flatten(1).zero_()
        model(inputs)
        return inputs

    monkeypatch.setitem(sys.modules, "adv_lib.attacks", SimpleNamespace(kept_in_place=kept_in_place))
    x, y = images_of("cifar10", 4, "cpu")

    def black() -> list[bool]:
        verdict = evaluate(model_of(ZOO[2], "cpu"), x, y, AdvLib("kept_in_place"), "l1:3072")
        return (verdict.x_adv == 0).flatten(1).all(1)[verdict.clean & ~verdict.robust].tolist()

    assert black() and all(black())
    monkeypatch.setattr(torch, "contiguous_format", torch.preserve_format)  # the twin
    assert not any(black())


def test_weights_are_networks_beside_the_zoo_and_words_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def found(subject: Any, norm: Norm, attack: str, *_: Any) -> Row:
        asked.append((subject.name, subject.weights, str(norm), attack))
        return {"passes": 1, "distances": [1.0, 2.0]}

    monkeypatch.setattr(benchmark, "distances", found)
    benchmark.main(["--out", str(tmp_path), "--only", "l1 pdpgd cnn", "--weights", "fast_cnn=a/b.pth", "--images", "2"])
    ours = [each for each in asked if each[3] == "pdpgd"]
    assert ours == [("fast_cnn=b.pth", Path("a/b.pth"), "l1", "pdpgd")]
    assert {each[0] for each in asked} == {"fast_cnn=b.pth"} and {each[2] for each in asked} == {"l1"}


def row(attack: str, subject: str, *far: float | None) -> Row:
    what = {"subject": subject, "norm": "l0", "attack": attack, "settings": {}, "version": 1, "images": 3}
    return {"what": what, "hardware": "abacus", "passes": 9, "distances": list(far)}


def test_the_table_holds_each_models_figures_and_their_mean() -> None:
    rows = [row("a", "m", 1.0, 2.0, 4.0), row("b", "m", 2.0, 2.0, None), row("a", "n", 1.0, 3.0, 5.0)]
    head, *table = benchmark.lines(rows)
    assert head == ["norm", "attack", "mean", "n, 3 images", "m, 3 images"]
    assert table == [["l0", "a", "1.000", "1.000 (3)", "1.000 (2)"], ["l0", "b", "-", "-", "0.800 (2)"]]
    elsewhere = row("c", "m", 1.0, 2.0, 4.0)
    elsewhere["what"]["norm"] = "l2"
    assert benchmark.lines([*rows, elsewhere])[-1] == ["l2", "c", "1.000", "-", "1.000 (2)"]  # of the norm's models
    assert "abacus" in benchmark.markdown(rows)
    assert benchmark.lines([*rows, row("a", "m", 2.0, 2.0, 4.0)])[1][4] == "1.000 (2)"  # the last of two counts


def test_a_sentence_for_each_norm_says_which_attack_to_take() -> None:
    rows = [row("a", "m", 1.0, 2.0, 4.0), row("b", "m", 2.0, 2.0, 4.0), row("x:c", "m", 1.0, 3.0, 4.0)]
    assert benchmark.advice(benchmark.lines(rows)[1:]) == ["l0: `a` (1.000); of other packages `x:c` (0.800)"]
    assert benchmark.advice(benchmark.lines([*rows, row("b", "n", 1.0, 2.0, 9.0)])[1:]) == ["l0: `b` (0.900)"]
    assert "- l0: `a` (1.000)" in benchmark.markdown(rows)


def test_what_is_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(subject: Any, norm: Norm, attack: str, *_: Any) -> Row:
        asked.append(f"{subject.name} {norm} {attack}")
        return {"passes": 1, "distances": [1.0, 2.0]}

    monkeypatch.setattr(benchmark, "distances", found)
    for images in ("2", "2", "0"):
        benchmark.main(["--out", str(tmp_path), "--images", images, "--only", "l0"])
    assert len(asked) == len({*asked}) == len(benchmark.SUBJECTS) * len(benchmark.listed(Norm.L0))
    assert len(kept(tmp_path / "optimality.jsonl")) == len(asked)
    assert "| l0 | sigma_zero | 1.000 |" in (tmp_path / "optimality.md").read_text(encoding="utf-8").replace("  ", "")
