"""Distances by queries are the meter's and the verdict's own, and the table tells who needs fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import hard_label as benchmark
from benchmarks._comparisons import ZOO, images_of, model_of
from benchmarks._kept import Row, kept
from robustbench_local.attacks.adba import ADBA
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge

Far = dict[str, list[float | None]]


def row(subject: str, attack: str, seed: int, far: Far) -> Row:
    what = {"subject": subject, "attack": attack, "version": 1, "images": 3, "queries": 1000, "seed": seed}
    return {"what": what, "hardware": "abacus", "distances": far}


def test_the_last_distances_are_those_of_the_verdict_with_that_budget() -> None:
    found = benchmark.distances(ZOO[0], "adba", 4, 200, 0)
    assert [*found] == ["100", "200"]
    x, y = images_of("mnist", 4, "cpu")
    for at in (100, 200):
        verdict = Judge(budget=at)(
            model_of(ZOO[0], "cpu"), Tensors(x, y, torch.arange(4)), ADBA(), benchmark.EVERYWHERE
        )
        assert verdict.forwards.max() <= at
        wanted = verdict.distance[verdict.clean].tolist()
        pairs = zip(found[str(at)], wanted, strict=True)  # the verdict counts queries of the step cut off, too
        assert all(far is not None and nearest - 1e-4 <= far <= nearest + 0.02 for far, nearest in pairs)


def test_the_table_says_after_how_many_queries_the_rival_is_reached() -> None:
    rival: Far = {"100": [None, None, 0.4], "4000": [0.1, 0.2, 0.3]}
    other: Far = {"100": [0.5, None, 0.1], "4000": [0.05, 0.15, 0.2]}  # the nearest of the seeds is what counts
    rows = [row("m", "hopskipjump", 0, rival), row("m", "hopskipjump", 1, other)]
    near: Far = {"100": [0.3, 0.3, 0.1], "200": [0.2, 0.14, 0.1]}
    far: Far = {"100": [0.3, 0.3, 0.1], "200": [0.2, 0.16, 0.1]}
    head, *table = benchmark.lines([*rows, row("m", "adba", 0, near), row("n", "adba", 0, far)])
    assert head[-1] == "queries to hopskipjump's distance at 4000"
    assert table[0][4] == "inf" and table[0][-2:] == ["0.2", ""] and table[1][-2] == "0.15"
    assert table[2][-1] == "200" and table[3][-1] == "not by 200"
    assert benchmark.lines([*rows, row("m", "adba", 0, far)])[-1][-1] == "not by 200"
    assert "abacus" in benchmark.markdown(rows)


def test_what_is_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(subject: Any, attack: str, images: int, queries: int, seed: int) -> dict[str, list[float]]:
        asked.append(f"{subject.name} {attack} {seed}")
        return {str(queries): [0.1, 0.2]}

    monkeypatch.setattr(benchmark, "distances", found)
    for images in ("2", "2", "0"):
        benchmark.main(["--out", str(tmp_path), "--images", images])
    assert len(asked) == len({*asked}) == 3 * len(ZOO)
    assert len(kept(tmp_path / "hard_label.jsonl")) == len(asked)
