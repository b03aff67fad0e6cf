"""Two models side by side, and a model beside its variant."""

from __future__ import annotations

from pathlib import Path

import pytest

import robustbench_local as rbl
from robustbench_local.core.errors import ConfigError
from robustbench_local.grids import bench
from robustbench_local.regression import measured
from robustbench_local.regression.outcome import Outcome, Verdict
from robustbench_local.regression.words import line, reasons, story, table
from tests.helpers.checked import asking, folder


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder(tmp_path))
    monkeypatch.setattr(measured, "_audit", lambda *_: ())
    monkeypatch.setattr(bench, "audit_and_keep", lambda *_: [])
    return tmp_path


def compare(first: str, second: str | None = None, **settings: object) -> Outcome:
    about = {key: value for key, value in asking().items() if key not in ("model", "name")}
    other = None if second is None else f"models.py:{second}"
    return rbl.regression.compare(first=f"models.py:{first}", second=other, **about, **settings)  # type: ignore[arg-type]


def test_a_worse_model_is_worse_and_the_table_says_by_how_much() -> None:
    found = compare("net", "worse")
    assert found.verdict is Verdict.WORSE and "than the first model" in reasons(found)[0]
    assert compare("worse", "net").verdict is Verdict.HOLDS
    (costs, other) = found.costs.values()
    assert costs.bytes == other.bytes > 3 * 64 * 4 and 0 < costs.fastest <= costs.seconds <= costs.slowest
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(found).splitlines()]
    assert rows[0][1:3] == ["models.py:net", "models.py:worse"]
    compared = found.comparisons[0]
    assert rows[2][1:3] == [f"{100 * compared.before:.1f}", f"{100 * compared.after:.1f}"]
    assert [row[0] for row in rows[2:]] == ["robust", "ms an image", "kB"]
    assert "models.py:worse" in line(found) and "ms an image" in story(found)


def test_a_masked_second_model_is_refused_by_the_images_of_the_first() -> None:
    found = compare("net", "Scaled")
    assert found.verdict is Verdict.CANNOT_JUDGE and "images that broke the first model" in reasons(found)[0]


def test_a_pruned_variant_stands_beside_its_model() -> None:
    found = compare("net", variant="pruned:0.7")
    assert [*found.costs] == ["models.py:net", "models.py:net pruned:0.7"]
    assert found.comparisons[0].lost and found.replayed is not None
    assert found.identity["model"] == "models.py:net pruned:0.7"


def test_non_inferiority_of_a_variant() -> None:
    assert compare("net", variant="pruned:0.01", margin=0.2).verdict is Verdict.HOLDS
    assert compare("net", variant="pruned:0.01", margin=0.001).verdict is Verdict.WORSE  # nothing so small is shown


def test_a_model_is_not_compared_with_itself() -> None:
    with pytest.raises(ConfigError, match="with itself"):
        compare("net")


def test_images_without_a_training_split_calibrate_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="no training images"):
        found = compare("net", variant="int8")
    assert found.rates["clean"].value > 0.8 and not found.problems
