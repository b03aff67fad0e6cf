"""The rehearsal of what a GPU is lent for: every stage in tiny sizes; a cut-off loses one part, and a start resumes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks._gpu_stages import STAGES, Given, Parts, Stage
from benchmarks._kept import kept
from robustbench_local.models.build import build_model


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    weights = tmp_path / "fast.pt"
    torch.save(build_model("fast_cnn", seed=0).state_dict(), weights)
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--weights", f"fast_cnn={weights}"]
    return ["--small", "--device", "cpu", *places]


@pytest.mark.slow
def test_every_stage_runs_and_is_not_run_again(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(command)
    rows = kept(tmp_path / "out" / "gpu.jsonl")
    assert {row["stage"] for row in rows} == {stage.name for stage in STAGES if "trades" not in stage.name}
    assert all(row["where"]["hardware"] for row in rows) and rows[0]["exit"] == 0
    timed = {row["stage"]: row["seconds"].keys() for row in rows if "seconds" in row}
    assert {"ours", "floor"} <= timed["pgd"] and {"ours", "floor"} <= timed["best"]
    table = (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 1 + 1 + len(rows) and "failed" not in capsys.readouterr().out
    gpu.main(command)
    assert kept(tmp_path / "out" / "gpu.jsonl") == rows


def dawdling(given: Given) -> Parts:
    def quick() -> dict[str, object]:
        return {"said": "done"}

    def slow() -> dict[str, object]:
        time.sleep(30)
        return {"said": "never"}

    yield "first", quick
    yield "second", slow


def failing(given: Given) -> Parts:
    yield from ()
    raise ValueError("out of luck")


def test_a_cut_off_loses_the_part_in_flight_and_no_other_stage(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "STAGES", (Stage("dawdles", 0.2, dawdling), Stage("fails", 9, failing)))
    gpu.main(command)
    said = capsys.readouterr().out
    assert "dawdles: cut off after 0 s, 1 parts made" in said and "fails: failed: ValueError: out of luck" in said
    assert [row["part"] for row in kept(tmp_path / "out" / "gpu.jsonl")] == ["first"]
    gpu.main([*command, "--seconds", "1"])
    assert "not begun: no time is left" in capsys.readouterr().out


def test_without_a_gpu_it_says_what_is_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main([*command, "--device", "cuda"])
    assert "device cuda is not there" in capsys.readouterr().err


def test_the_stages_fit_the_time_that_a_machine_is_lent_for() -> None:
    assert sum(stage.seconds for stage in STAGES) <= 12 * 60
