"""All metrics of a grid: a real one of small models, and made-up rows where cells are missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_local.audit.records import Audit, Audits, Retry, audits
from robustbench_local.cli.main import main
from robustbench_local.core.errors import ConfigError, DataError, StoreError
from robustbench_local.grids.run import run_grid
from robustbench_local.metrics.paired import compare
from robustbench_local.report import sheets
from robustbench_local.report.curve import at
from robustbench_local.report.metrics import write_metrics
from robustbench_local.report.sheets import Sheet
from robustbench_local.report.statistics import Statistics
from robustbench_local.storage.row import Row, done
from robustbench_local.storage.store import Store

MODELS = '''
import torch
from torch import nn
from robustbench_local import load_data
from robustbench_local.core.defense import Defended

class Means(Defended):
    """The class whose mean image is nearest, of `count` images."""

    def __init__(self, count, noise=0.0):
        super().__init__()
        self.noise, self.stochastic = noise, noise > 0
        x, y = load_data("mnist", n=count, source="bundled")
        means = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
        self.weight, self.bias = nn.Parameter(means), nn.Parameter(-means.pow(2).sum(1) / 2)

    def forward(self, x, draws=None):
        logits = x.flatten(1) @ self.weight.T + self.bias
        return logits + self.noise * draws.normal(10) if self.noise else logits

def one(): return Means(500)
def two(): return Means(60)
def noisy(): return Means(500, 2.0)
'''
GRID = """
data: mnist
source: bundled
n: 80
models: ["metric_toys:one", "metric_toys:two", "metric_toys:noisy"]
attacks: [{pgd: {steps: 2}}, {deepfool: {steps: 5, threat: "l2:1"}}, {noise: {threats: ["linf:0.1"]}}]
threats: ["linf:0.05", "linf:0.1"]
seeds: [0, 1]
draws: 5
eot: 2
device: cpu
allow_chance: true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that has run: two fixed models and a random one, two norms, two eps, two seeds."""
    here = tmp_path_factory.mktemp("statistics")
    (here / "metric_toys.py").write_text(MODELS)
    (here / "toy.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        rows = run_grid(str(here / "toy.yaml"), results=str(here))
    assert {row["status"] for row in rows} == {"ok"}
    return here / "toy"


@pytest.fixture(scope="module")
def grid(folder: Path) -> Statistics:
    store = Store(folder)
    return Statistics(store.rows(), lambda row: store.arrays(row["key"]), audits=audits(store))


def records(sheet: Sheet, **where: Any) -> list[dict[Any, Any]]:
    frame = sheet.frame
    for key, value in where.items():
        frame = frame[frame[key] == value]
    return frame.to_dict("records")


def test_every_sheet_has_figures(grid: Statistics) -> None:
    assert [sheet.title for sheet in grid.sheets()] == [
        "Accuracy of every cell",
        "Worst case and rank",
        "Paired comparison of models",
        "Robust accuracy over eps",
        "Distance of the nearest adversarial image",
        "Queries to success",
        "Precision, recall, F1, ROC-AUC",
        "Calibration",
        "Largest gap in worst-case robust accuracy",
        "Classes and groups",
        "Repeated seeds",
        "Folds of the images",
    ]


def test_curves_meet_the_worst_cases_of_the_tables_and_never_rise(grid: Statistics) -> None:
    curves = grid.curves()
    for norm in ("linf", "l2"):
        for model in ("metric_toys:one / none", "metric_toys:two / none", "metric_toys:noisy / none"):
            points = records(curves, norm=norm, model=model)
            assert [point["eps"] for point in points] == sorted(point["eps"] for point in points)
            assert (np.diff([point["robust"] for point in points]) <= 0).all()
            assert points[0]["attacks"] == "none"
            assert ("minimum-norm" in {point["attacks"] for point in points}) == (norm == "l2")
    for table in grid.tables:
        for line in table.lines:
            eps = float(table.threat.partition(":")[2])
            (point,) = records(curves, model=f"{line.model} / none", eps=eps, norm=table.threat.partition(":")[0])
            worst = line.worst[-1]
            assert worst is not None
            assert point["robust"] <= worst.value + 1e-12
            if not table.stochastic:  # at the larger eps the smaller ball's finds count, too
                assert point["robust"] == pytest.approx(worst.value, abs=0.01)


def test_deepfools_curve_says_what_the_judge_says_at_that_eps(grid: Statistics) -> None:
    (row,) = [
        row
        for row in grid.rows
        if row["definition"]["attack"] == "deepfool"
        and row["definition"]["model"] == "metric_toys:one"
        and row["definition"]["seed"] == 0
    ]
    assert at(grid.of(row), 1.0).mean() == pytest.approx(row["results"]["robust_accuracy"])
    assert at(grid.of(row), 0.3).mean() > at(grid.of(row), 1.0).mean()


def test_pairs_are_of_the_worst_cases(grid: Statistics) -> None:
    (record,) = records(grid.pairs(), threat="linf:0.1")  # the random model has a table of its own
    lines = {f"{row['definition']['model']} / none": [] for row in grid.rows}  # type: ignore[var-annotated]
    for row in grid.rows:
        if row["definition"]["threat"] == "linf:0.1":
            lines[f"{row['definition']['model']} / none"].append(grid.robust_shares(row))
    first, second = (np.minimum.reduce(lines[record[name]]) for name in ("first", "second"))
    assert record["difference"] == pytest.approx(first.mean() - second.mean())
    assert record["p"] == compare(first, second).p


def test_seeds_are_gathered_per_cell_and_least_per_image_is_no_higher_than_any(grid: Statistics) -> None:
    found = records(grid.seeds())
    assert len(found) == 3 * (2 + 1 + 1)
    assert {record["seeds"] for record in found} == {2}
    assert all("seed" not in record["attack"] for record in found)
    for record in found:
        assert record["least per image"] <= record["least"] + 1e-12 <= record["mean"] + 1e-12
        assert record["deviation"] == pytest.approx((record["most"] - record["least"]) / np.sqrt(2))


def test_folds_have_the_mean_of_the_whole(grid: Statistics) -> None:
    worst = {(r["threat"], r["model"]): r["worst case"] for r in records(grid.ranks()) if "worst case" in r}
    folds = records(grid.over_folds())
    assert any(not pd.isna(worst[record["threat"], record["model"]]) for record in folds)
    for record in folds:
        assert record["folds"] == 5
        if not pd.isna(known := worst[record["threat"], record["model"]]):
            assert record["mean"] == pytest.approx(known)


def test_groups_come_from_classes(grid: Statistics) -> None:
    grouped = Statistics(grid.rows, grid.arrays, {"round": ["0", "6", "8", "9"], "straight": ["1", "4", "7"]})
    found = records(grouped.classes(), of="groups", model="metric_toys:one / none", threat="linf:0.05")
    assert [record["name"] for record in found] == ["round", "straight"]
    of_class = {r["name"]: r for r in records(grid.classes(), model="metric_toys:one / none", threat="linf:0.05")}
    both = [of_class[name] for name in ("1", "4", "7")]
    expected = sum(each["n"] * each["robust"] for each in both) / sum(each["n"] for each in both)
    assert found[1]["robust"] == pytest.approx(expected)
    assert found[1]["n"] == sum(each["n"] for each in both)
    assert records(grouped.gaps(), of="groups")


def test_confusions_hold_the_clean_and_the_robust_accuracy(grid: Statistics) -> None:
    found = {sheet.title: sheet.frame for sheet in grid.confusions()}
    (clean,) = [f for t, f in found.items() if "linf:0.1" in t and "toys:one" in t and t.endswith("clean")]
    (attacked,) = [f for t, f in found.items() if "linf:0.1" in t and "toys:one" in t and t.endswith("under pgd")]
    own = [r for r in grid.rows if r["definition"]["threat"] == "linf:0.1" and "one" in r["definition"]["model"]]
    for frame, key, value in ((clean, "clean_accuracy", own[0]), (attacked, "robust_accuracy", None)):
        counts = frame.drop(columns="true").to_numpy()
        assert counts.shape == (10, 11) and counts.sum() == 80
        expected = min(row["results"][key] for row in ([value] if value else own))
        assert counts.trace() / 80 == pytest.approx(expected)


def test_a_failed_cell_takes_its_point_from_the_curve_and_its_line_from_the_pairs(grid: Statistics) -> None:
    def failing(row: Row) -> Row:
        about = row["definition"]
        if (about["model"], about["threat"], about["attack"]) != ("metric_toys:one", "linf:0.1", "pgd"):
            return row
        error = {"type": "ModelError", "message": "out of order"}
        return Row(key=row.key, definition=about, status="error", error=error)

    broken = Statistics([failing(row) for row in grid.rows], grid.arrays)
    assert len(records(broken.pairs(), threat="linf:0.1")) == 0
    assert len(records(broken.pairs(), threat="linf:0.05")) == 1
    assert not records(broken.curves(), norm="linf", model="metric_toys:one / none")  # one eps is no curve
    assert records(broken.curves(), norm="linf", model="metric_toys:two / none")
    rank = records(broken.ranks(), threat="linf:0.1", model="metric_toys:one / none")[0]
    assert pd.isna(rank["worst case"]) and pd.isna(rank["rank"])


def test_what_an_audit_broke_is_broken_everywhere(grid: Statistics) -> None:
    own = [
        row
        for row in grid.rows
        if (row["definition"]["model"], row["definition"]["threat"]) == ("metric_toys:one", "linf:0.05")
    ]
    before = {
        record["name"]: record for record in records(grid.classes(), model="metric_toys:one / none", threat="linf:0.05")
    }
    robust = np.minimum.reduce([grid.robust_shares(row) for row in own])
    arrays = grid.of(own[0])
    fell = int(arrays["ids"][robust == 1][0])
    keys = tuple(row["key"] for row in own)
    retry = Retry("linf:0.05", "best", 1, (fell,), keys)
    audited = Statistics(grid.rows, grid.arrays, audits=Audits([*grid.audits, Audit(keys, (), (retry,))]))
    (rank,) = records(audited.ranks(), model="metric_toys:one / none", threat="linf:0.05")
    assert rank["worst case"] == pytest.approx(robust.mean() - 1 / 80)
    name = str(arrays["labels"][arrays["ids"] == fell][0])
    (after,) = records(audited.classes(), model="metric_toys:one / none", threat="linf:0.05", name=name)
    assert after["robust"] == pytest.approx(before[name]["robust"] - 1 / after["n"])


def test_the_command_prints_and_writes_the_same_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(folder), "--confusion"]) == 0
    shown = capsys.readouterr().out
    assert "Worst case and rank" in shown and "no class" in shown
    assert max(map(len, shown.splitlines())) <= max(80, len(str(folder)) + 60)
    files = [folder / "metrics.md", folder / "metrics.json"]
    first = [file.read_bytes() for file in files]
    assert main(["metrics", str(folder), "--confusion"]) == 0
    assert [file.read_bytes() for file in files] == first
    capsys.readouterr()
    assert main(["metrics", str(folder), "--confusion", "--json"]) == 0
    assert capsys.readouterr().out == first[1].decode()
    found: list[Mapping[str, Any]] = json.loads(first[1])
    cells = found[0]["rows"]
    assert len(cells) == sum(map(done, Store(folder).rows()))
    assert all(cell["robust low"] <= cell["robust"] <= cell["robust high"] for cell in cells)
    assert "| robust |" in first[0].decode() or "robust" in first[0].decode().splitlines()[4]


@pytest.mark.parametrize(
    ("text", "words"), [("{", "cannot read"), ("[1]", "holds no groups"), ('{"a": ["x"]}', "names the classes x")]
)
def test_groups_that_mean_nothing_are_refused(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "groups.json").write_text(text)
    with pytest.raises(DataError, match=words):
        write_metrics(folder, tmp_path / "groups.json")


def test_no_rows_or_no_folds_is_a_mistake(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no row"):
        write_metrics(tmp_path)
    with pytest.raises(ConfigError, match="at least two"):
        write_metrics(folder, folds=1)


def test_sheets_show_what_is_unknown_as_a_dash_and_an_interval_behind_its_figure() -> None:
    frame = pd.DataFrame(
        [
            {"model": "a|b", "robust": 0.5, "robust low": 0.4, "robust high": 0.61234, "of": 10},
            {"model": "c", "robust": None, "robust low": None, "robust high": None},
        ]
    )
    sheet = Sheet("Title", "Note.", frame)
    assert sheets.markdown([sheet]) == (
        "## Title\n\nNote.\n\n| model | robust | of |\n| --- | ---: | ---: |\n"
        "| a\\|b | 0.5 (0.4-0.612) | 10 |\n| c | – | – |\n"
    )
    assert json.loads(sheets.json_text([sheet]))[0]["rows"][1] == {
        "model": "c",
        "robust": None,
        "robust low": None,
        "robust high": None,
        "of": None,
    }
