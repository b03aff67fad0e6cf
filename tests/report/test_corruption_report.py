"""Mean corruption errors, the worst corruption, curves and correlations by hand; a grid of corruptions end to end."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from robustbench_local.cli.main import main
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.errors import ConfigError
from robustbench_local.grids.plan import read_config
from robustbench_local.grids.run import run_grid
from robustbench_local.metrics.rates import wilson
from robustbench_local.report.corruption import CorruptionTable, correlations, corruption_tables
from robustbench_local.report.corruption_text import corruption_files, csv_text, show_corruptions
from robustbench_local.report.table import robust_tables
from robustbench_local.storage.row import Row, row_key

ABOUT = {
    "data": "cifar10",
    "split": "test",
    "data_digest": "d",
    "ids": "0:100",
    "model": "small",
    "weights_digest": "w",
    "defense_settings": {},
    "defense_version": 1,
    "attack_version": 1,
    "seed": 0,
    "count": "all",
    "targets": None,
    "precision": "float32",
    "budget": None,
    "eot": 20,
    "draws": 20,
}


def corrupted(defense: str, attack: str, severity: int, error: float | None, **about: Any) -> Row:
    """100 images; error None is a cell that failed."""
    definition = (
        ABOUT
        | {
            "defense": defense,
            "attack": attack,
            "attack_settings": {"severity": severity} | about.pop("settings", {}),
            "access": "none",
            "threat": "none",
            "corruption": "CIFAR-10-C",
        }
        | about
    )
    row = Row(key=row_key(definition), definition=definition)
    if error is None:
        return Row(row, status="error", error={"type": "DataError", "message": "no\nimage"})
    accuracy = 1 - error
    results = {
        "n": 100,
        "clean_accuracy": 0.9,
        "corruption_accuracy": accuracy,
        "robust_accuracy": min(accuracy, 0.9),
        "corruption_interval": list(wilson(100 * accuracy, 100)),
        "stochastic": False,
    }
    return Row(row, status="ok", results=results)


def attacked(defense: str, robust: float) -> Row:
    definition = ABOUT | {
        "defense": defense,
        "attack": "pgd",
        "attack_settings": {},
        "access": "gradients",
        "threat": "linf:8/255",
    }
    results = {
        "n": 100,
        "stochastic": False,
        "clean_accuracy": 0.9,
        "clean_interval": [0.8, 0.95],
        "robust_accuracy": robust,
        "robust_interval": [0, 1],
        "flags": [],
    }
    return Row(key=row_key(definition), definition=definition, status="ok", results=results)


ROWS = [
    corrupted("none", "fog", 1, 0.2),
    corrupted("none", "fog", 5, 0.6),
    corrupted("none", "snow", 1, 0.1),
    corrupted("none", "snow", 5, 0.3),
    corrupted("better", "fog", 1, 0.1),
    corrupted("better", "fog", 5, 0.3),
    corrupted("better", "snow", 1, 0.2),
    corrupted("better", "snow", 5, 0.4),
]


def table(rows: list[Row], baseline: str | None = None) -> CorruptionTable:
    (found,) = corruption_tables(rows, baseline)
    return found


def test_errors_are_plain_means_and_relative_ones_are_per_corruption() -> None:
    found = table(ROWS, baseline="none")
    better, none = found.lines  # the smaller mean error first
    assert better.defense.name == "better" and none.mean_error == pytest.approx(0.3)
    assert better.mean_error == pytest.approx(0.25)
    assert none.worst is not None and better.worst is not None
    assert none.worst[0] == "fog" and none.worst[1] == pytest.approx(0.4)
    assert better.worst[0] == "snow" and better.worst[1] == pytest.approx(0.3)
    curve = [none.accuracy(severity=severity) for severity in found.severities]
    assert [rate.value for rate in curve if rate] == pytest.approx([0.85, 0.55])
    whole = none.accuracy()
    assert whole is not None and (whole.low, whole.high) == pytest.approx(wilson(70, 100))
    assert found.relative(better) == pytest.approx((0.4 / 0.8 + 0.6 / 0.4) / 2)  # a ratio of sums, then the mean
    assert found.relative(none) == pytest.approx(1)
    assert found.title == "cifar10 test, CIFAR-10-C, 2 corruptions, severity 1, 5, 100 images"


@pytest.mark.parametrize("rows", [ROWS[:-1], [*ROWS[:-1], corrupted("better", "snow", 5, None)]])
def test_a_missing_or_failed_cell_leaves_no_mean_and_no_rank(rows: list[Row]) -> None:
    found = table(rows, baseline="none")
    none, better = found.lines  # better is no longer first, however well it looks
    assert better.mean_error is None and better.worst is None and found.relative(better) is None
    assert none.mean_error is not None and better.accuracy(corruption="fog") is not None
    assert found.notes == (
        "small / better, snow 5: " + ("not run" if len(rows) < len(ROWS) else "failed, DataError: no image"),
    )


def test_sets_and_settings_are_kept_apart_and_no_corruption_is_in_a_table_of_attacks() -> None:
    extra = [corrupted("none", "plain_noise", 1, 0.1, corruption="other", settings={"kind": kind}) for kind in "ab"]
    first, second = corruption_tables([*ROWS, *extra])
    assert first.benchmark == "CIFAR-10-C" and second.corruptions == ["plain_noise (kind=a)", "plain_noise (kind=b)"]
    assert robust_tables([*ROWS, *extra], lambda row: np.ones(100)) == []


def test_the_correlation_of_both_robustnesses_is_scipys() -> None:
    errors = {"a": (0.3, 0.10), "b": (0.2, 0.35), "c": (0.25, 0.30), "d": (0.1, 0.20)}
    rows = [corrupted(name, "fog", 3, error) for name, (error, _) in errors.items()]
    rows += [attacked(name, robust) for name, (_, robust) in errors.items()]

    def shares_of(row: Row) -> npt.NDArray[np.float64]:
        return np.full(100, row["results"]["robust_accuracy"])

    (found,) = correlations(rows, shares_of)
    accuracies, robust = [1 - error for error, _ in errors.values()], [each for _, each in errors.values()]
    assert found.n == 4 and found.threat == "linf:8/255, 100 images"
    assert found.spearman == pytest.approx(stats.spearmanr(accuracies, robust).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(accuracies, robust).statistic)
    assert found.spearman != pytest.approx(found.pearson)
    assert correlations(rows[:2] + rows[4:6], shares_of) == []  # two models tell nothing
    assert correlations(rows[:-4] + [attacked(name, 0.0) for name in errors], shares_of) == []  # nor does a constant


def test_text_holds_every_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(csv.DictReader(csv_text([table(ROWS)]).splitlines()))
    assert len(lines) == 8 and {(line["defense"], line["corruption"], line["severity"]) for line in lines} >= {
        ("none", "fog", "5"),
        ("better", "snow", "1"),
    }
    assert float(next(line for line in lines if line["severity"] == "5")["accuracy"]) in (0.4, 0.7, 0.6)
    text = corruption_files(ROWS, lambda row: np.ones(100), baseline="none")["corruption.md"]
    low, high = (100 * (1 - end) for end in reversed(wilson(75, 100)))
    assert f"| small | better | 10.0 | 25.0 ({low:.1f}-{high:.1f}) | 100.0 | 15.0 | 35.0 | snow 30.0 |" in text
    assert "| fog | 20.0 | 40.0 |" in text and "plain mean" in text
    show_corruptions(ROWS, lambda row: np.ones(100))
    assert "CIFAR-10-C, 2 corruptions" in capsys.readouterr().out
    assert corruption_files([], lambda row: np.ones(100)) == {}


GRID: dict[str, Any] = {
    "data": "mnist",
    "source": "bundled",
    "n": 10,
    "models": ["mnist_small"],
    "defenses": ["none"],
    "device": "cpu",
}


def grid_file(folder: Path) -> str:
    path = folder / "some.yaml"
    path.write_text("data: mnist\nmodels: [mnist_small]\nattacks: [fog]\n")
    return str(path)


def test_a_grid_of_corruptions_needs_no_threat_and_takes_its_severities(tmp_path: Path) -> None:
    common: dict[str, Any] = GRID | {"results": str(tmp_path / "results")}
    attacks = ["mnist_fog", {"shear": {"severity": 2}}, {"noise": {"threat": "linf:0.1"}}]
    rows = run_grid(grid_file(tmp_path), attacks=attacks, severities=[1, 5], baseline="none", **common)
    assert all(row["status"] == "ok" for row in rows)
    told = [(row["definition"]["attack"], row["definition"]["attack_settings"].get("severity")) for row in rows]
    assert told == [("mnist_fog", 1), ("mnist_fog", 5), ("shear", 2), ("noise", None)]
    assert rows[0]["definition"]["threat"] == "none" and rows[0]["definition"]["corruption"] == "MNIST-C"
    fog, harder = (row["results"]["corruption_accuracy"] for row in rows[:2])
    assert fog >= harder and rows[0]["results"]["forwards_mean"] == 0
    folder = tmp_path / "results" / "some"
    text = (folder / "corruption.md").read_text()
    assert "MNIST-C, 2 corruptions" in text and "relative mCE" in text
    for name in ("corruption.md", "corruption.csv"):
        (folder / name).write_text("of another day")
    assert main(["report", str(folder)]) == 0  # anew, with the grid's baseline
    assert (folder / "corruption.md").read_text() == text
    assert (folder / "corruption.csv").read_text().startswith("data,split")
    (folder / "grid.json").write_text('{"baseline": 3}')
    with pytest.warns(UserWarning, match=r"grid\.json counts as missing: its baseline is 3"):
        assert main(["report", str(folder)]) == 0
    assert "relative mCE" not in (folder / "corruption.md").read_text()
    assert "linf:0.1" in (folder / "table.md").read_text() and "fog" not in (folder / "table.md").read_text()
    under = run_grid(grid_file(tmp_path), attacks=attacks[-1:], attack_under="mnist_fog:5", **common)
    assert {row["key"] for row in under}.isdisjoint(row["key"] for row in rows)
    assert under[0]["results"]["clean_accuracy"] == pytest.approx(harder, abs=0.3)
    assert "linf:0.1 under mnist_fog:5" in (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"baseline": "nonne"}, 'baseline "nonne".*did you mean "none"'),
        ({"severities": [7]}, r"is \[7\]: it must be a whole number in \[1, 5\]"),
        ({"attack_under": "fog:0"}, "severity is 0"),
        ({"severities": "all"}, "severities"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_grid(grid_file(tmp_path), **GRID, results=str(tmp_path / "results"), **overrides)
    assert not (tmp_path / "results").exists()


def test_the_packaged_grids_hold_the_published_sets_at_all_severities() -> None:
    known = {row.name: find_attack(row.name) for row in listing(ATTACKS) if "severity" in row.settings}
    for name, sets in (("cifar10_noise", ("CIFAR-10-C", "CIFAR-10-C extra")), ("mnist_noise", ("MNIST-C",))):
        config = read_config(name, {})
        listed = [entry for entry in config.attacks if isinstance(entry, str)]
        wanted = [name for name, each in known.items() if isinstance(each, Corruption) and each.benchmark in sets]
        assert sorted(listed) == sorted(wanted) and config.severities == [1, 2, 3, 4, 5]
        assert config.baseline in config.defenses and len(config.defenses) >= 10
