"""load_results(FOLDER).to_frame(): a row per cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from pandas import isna

import robustbench_local as rbl
from robustbench_local.core.errors import StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a real grid: two attacks, a corruption, and a model that cannot read these images."""
    place = tmp_path_factory.mktemp("results")
    broken = tmp_path_factory.mktemp("models") / "broken.py"
    broken.write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 4)\n")
    rbl.run_grid(
        data="mnist",
        source="bundled",
        models=["zoo:mnist/none", f"{broken}:net"],
        attacks=["fgsm", {"pgd": {"steps": 3}}, "fog"],
        threats=["linf:0.1"],
        n=12,
        results=str(place),
        device="cpu",
    )
    return place


def test_a_row_per_cell_with_its_figures(folder: Path) -> None:
    (grid,) = (each for each in folder.iterdir() if each.is_dir())
    results = rbl.load_results(grid)
    frame = results.to_frame()
    lines = {(line["model"], line["attack"]): line for line in frame.to_dict("records")}
    assert len(frame) == len(lines) == len(results.rows) == 6
    for row in results.rows:
        line = lines[row.model, row.attack]
        assert line["threat"] == row.threat and line["images"] == 12 and line["key"] == row.key
        assert isna(line["error"]) is row.ok is not isna(line["robust"])
        if not row.ok:
            assert "cannot read images" in line["error"]
            continue
        assert line["clean"] == row.results["clean_accuracy"] and line["robust"] == row.results["robust_accuracy"]
        assert [line["robust_low"], line["robust_high"]] == list(row.results["robust_interval"])
        assert line["flags"] == ", ".join(row.results["flags"]) and isna(line["corruption"]) is (row.attack != "fog")
    assert frame["status"].tolist().count("error") == 3 and frame["robust"].nunique() > 1


def test_the_folder_above_will_do(folder: Path) -> None:
    (grid,) = (each for each in folder.iterdir() if each.is_dir())
    assert rbl.load_results(folder).to_frame().equals(rbl.load_results(grid).to_frame())


def test_a_folder_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="name a folder that a grid wrote"):
        rbl.load_results(tmp_path)
