"""The table of `best` beside AutoAttack: its figures are those of the kept parts, and what is kept is not run again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import best as benchmark
from benchmarks._comparisons import Subject
from benchmarks._kept import Row, kept
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model

SAME = {"subject": "net", "weights": "w", "threat": "linf:0.3"}


def ours(first: int, count: int, effort: float = 1.0, version: int = 2) -> Row:
    what = {"same": SAME, "version": version, "effort": effort}
    robust = [1] * count + [0] * (100 - count)
    return {"what": what, "first": first, "robust": robust, "forwards": 78_310, "backwards": 19_000}


def theirs(first: int, ours: int, peer: int, weights: str = "w") -> Row:
    robust = [[1] * count + [0] * (100 - count) for count in (ours, peer)]
    return {"what": SAME | {"weights": weights, "images": 1000}, "first": first, "robust": robust}


def test_only_images_that_both_attacked_are_compared() -> None:
    beside = [theirs(0, 82, 50), theirs(100, 1, 1, weights="others"), theirs(700, 1, 1)]
    cells = benchmark.line([ours(0, 51), ours(100, 3)], beside)
    assert cells[3:8] == ["100", "51.0", "82.0", "50.0", "+1.0"]
    # 783.1 forwards per image beside at least half of 7,831
    assert cells[8:] == ["783 (0.200 of AutoAttack's)", "190 (0.200 of AutoAttack's)"]


def test_pyautoattack_alone_is_compared_with_and_names_no_figure_of_ours() -> None:
    alone: Row = {"what": SAME, "first": 100, "robust": [[1] * 4 + [0] * 96]}
    assert benchmark.line([ours(100, 3)], [alone])[3:8] == ["100", "3.0", "-", "4.0", "-1.0"]
    assert benchmark.line([ours(0, 51), ours(100, 3)], [theirs(0, 82, 50), alone])[4:8] == ["27.0", "-", "27.0", "+0.0"]


def test_pyautoattack_runs_only_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reference(subject: Subject, first: int, device: str) -> Row:
        assert subject.linf == 8 / 255
        return {"robust": [[1] * 7 + [0] * 93]}

    monkeypatch.setattr(benchmark, "reference", reference)
    alone, beside = tmp_path / "pyautoattack.jsonl", tmp_path / "parts.jsonl"
    command = ["--pyautoattack", "--out", str(tmp_path), "--beside", str(beside), "--only", "cifar10/adversarial"]
    benchmark.main([*command, "--images", "200"])
    alone.rename(beside)
    benchmark.main([*command, "--images", "300"])
    assert [[row["first"] for row in kept(file)] for file in (beside, alone)] == [[0, 100], [200]]
    assert not (tmp_path / "best.jsonl").exists()


def test_without_autoattack_there_is_no_comparison() -> None:
    cells = benchmark.line([ours(0, 51), ours(100, 4)], [])
    assert cells[3:] == ["200", "27.5", "-", "-", "-", "783", "190"]


def test_the_table_has_a_line_per_effort_of_the_newest_version() -> None:
    text = benchmark.markdown([ours(0, 51), ours(0, 40, effort=10.0), ours(0, 77, version=1)], [])
    assert "| 51.0 |" in text and "| 40.0 |" in text and "77.0" not in text


def test_what_is_kept_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "fast.pt"
    torch.save(build_model("fast_cnn", seed=0).state_dict(), weights)
    monkeypatch.setattr(benchmark, "evaluate", partial(evaluate, allow_chance=True))  # the weights are fresh
    command = ["--weights", f"fast_cnn={weights}", "--only", "fast_cnn", "--images", "100", "--effort", "0.01"]
    benchmark.main([*command, "--out", str(tmp_path)])
    (row,) = kept(tmp_path / "best.jsonl")
    assert len(row["robust"]) == 100 and row["forwards"] >= row["backwards"] > 0

    def again(*_: object, **__: object) -> Row:
        raise AssertionError("it was kept")

    monkeypatch.setattr(benchmark, "part", again)
    benchmark.main([*command, "--out", str(tmp_path)])
    assert kept(tmp_path / "best.jsonl") == [row]
    with pytest.raises(AssertionError, match="kept"):
        benchmark.main([*command, "--out", str(tmp_path), "--effort", "0.02"])


def test_parts_are_whole() -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--images", "150"])
