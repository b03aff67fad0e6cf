"""Grids on models that grant less than gradients: what needs more is left out by name, and is no failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustbench_local import run_grid
from robustbench_local.cli.main import main
from robustbench_local.core.access import Access
from robustbench_local.core.threat import Norm
from robustbench_local.grids.suites import chosen

OWN = """
import torch
import robustbench_local as rbl

NET = rbl.load_model("zoo:mnist/none")

def scores(x):
    return NET(torch.from_numpy(x)).detach().numpy()
"""
MODELS = ["zoo:mnist/none", {"name": "own_scores.py:scores", "about": {"access": "scores", "classes": 10}}]
SETTINGS: dict[str, Any] = dict(data="mnist", source="bundled", n=16, threats=["linf:0.1"], models=MODELS)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_scores.py").write_text(OWN)
    (tmp_path / "black.yaml").write_text("data: mnist\nmodels: zoo:mnist/none\nattacks: by_access\nthreats: linf:0.1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_needs_more_is_left_out_by_name(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attacks = [{"pgd": {"steps": 2}}, {"square": {"steps": 5}}]
    rows = run_grid("black.yaml", **SETTINGS, attacks=attacks)
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "ok"]
    assert rows[2].left_out and rows[2].why == "left out, needs gradients, and the model grants scores"
    table = (own / "results/black/table.md").read_text()
    assert "pgd: left out, needs gradients, and the model grants scores" in table.replace("\\", "")
    page = (own / "results/black/index.html").read_text()
    assert "1 of 2 attacks left out: the model grants scores" in page
    words = ["run", "grid=black.yaml", "n=16", "source=bundled", "attacks=[{pgd:{steps:2}}]"]
    assert main([*words, "models=[{name:own_scores.py:scores,about:{access:scores,classes:10}}]"]) == 0
    assert "left out" in capsys.readouterr().out


def test_a_dry_run_says_so_too() -> None:
    rows = run_grid("black.yaml", **SETTINGS, attacks=["pgd", "square"], dry_run=True)
    assert [row["status"] for row in rows] == ["to do", "to do", "left out", "to do"] and rows[2]["seconds"] == 0


def test_each_model_gets_the_attacks_of_its_access() -> None:
    rows = run_grid("black.yaml", **SETTINGS, dry_run=True)
    cells = [[row["cell"] for row in rows if name in row["cell"]] for name in ("zoo:mnist/none none", "own_scores")]
    for name, open_box, black_box in (
        ("pgd", 1, 0),
        ("best", 1, 0),
        ("square", 1, 1),
        ("hopskipjump", 1, 1),
        ("fog", 0, 0),
    ):
        assert [sum(f"| {name}" in cell for cell in each) for each in cells] == [open_box, black_box], name
    assert all(row["status"] == "to do" for row in rows)
    assert {"substitute", "jpeg_compression"} <= {
        cell.partition(" | ")[2].partition("(")[0].partition(" ")[0] for cell in cells[1]
    }


def test_strangers_data_have_no_surrogates() -> None:
    names = [
        next(iter(each)) if isinstance(each, dict) else each
        for each in chosen(["by_access"], Access.LABELS, "folder:x", {Norm.LINF})
    ]
    assert "hopskipjump" in names and not {"transfer", "substitute", "square"} & {*names}
    assert chosen(["pgd"], Access.LABELS, "mnist", {Norm.LINF}) == ["pgd"]
