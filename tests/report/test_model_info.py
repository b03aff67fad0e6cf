"""Who a model is of: from the grid to the page and to model_info, and no row is named by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.core.errors import ConfigError
from robustbench_local.grids.run import run_grid
from robustbench_local.report import grid_file
from robustbench_local.report.model_info import ModelInfo
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from tests.helpers.packed import unpacked
from tests.helpers.rows import a_row, stored

ABOUT: dict[str, Any] = {
    "title": "Towards <b>Robust</b> Models",
    "authors": "A. Author and B. Author",
    "venue": "Venue 2026",
    "link": "https://example.org/paper?a=1&b='2'",
    "code": "https://example.org/code",
    "extra_data": False,
    "licence": "MIT",
    "bibtex": "@misc{key, title={Towards}}",
}
GRID: dict[str, Any] = {
    "data": "mnist",
    "source": "bundled",
    "n": 8,
    "models": ["mnist_small"],
    "attacks": ["fgsm"],
    "threats": "linf:0.1",
    "device": "cpu",
}


def report(folder: Path, said: grid_file.Said) -> None:
    store = stored(folder, a_row([1, 0, 0, 1]), a_row([1, 1, 0, 1], defense="jpeg"))
    grid_file.keep(folder, said)
    write_report(Results.of(store.rows(), store), folder)


def test_it_reaches_the_page_and_model_info(tmp_path: Path) -> None:
    report(tmp_path, grid_file.Said(None, {"preact_small / jpeg": ModelInfo(**ABOUT)}))
    page = tmp_path / "index.html"
    assert page.read_text().count("Towards &lt;b&gt;Robust&lt;/b&gt; Models") == 1
    (panel,) = (below for below in unpacked(page)["opened"].values() if "Towards" in below)
    for word in ("A. Author and B. Author, Venue 2026", "Without additional data", "Licence: <bdi>MIT"):
        assert word in panel
    assert 'href="https://example.org/paper?a=1&amp;b=&#39;2&#39;"' in panel
    jpeg, none = (json.loads(path.read_text()) for path in sorted(tmp_path.glob("model_info/*/*/*.json")))
    assert (jpeg["name"], jpeg["authors"], jpeg["venue"]) == (ABOUT["title"], ABOUT["authors"], ABOUT["venue"])
    assert (jpeg["link"], jpeg["code"], jpeg["licence"]) == (ABOUT["link"], ABOUT["code"], "MIT")
    assert jpeg["additional_data"] is False
    assert (none["link"], none["additional_data"], none["name"]) == ("", None, "preact_small, none")
    assert "licence" not in none


def test_what_is_said_of_a_model_holds_for_each_defense_unless_it_has_its_own(tmp_path: Path) -> None:
    own = {"preact_small": ModelInfo(title="whole"), "preact_small / jpeg": ModelInfo(title="own")}
    report(tmp_path, grid_file.Said(None, own))
    names = [json.loads(path.read_text())["name"] for path in sorted(tmp_path.glob("model_info/*/*/*.json"))]
    assert names == ["own", "whole"]


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "//example.org", "https://", "http://a b"])
def test_a_link_is_of_the_web_or_refused(link: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be an address that begins with"):
        ModelInfo(link=link)
    with pytest.raises(ConfigError, match="code is"):
        ModelInfo(code=link)
    (tmp_path / "grid.json").write_text(json.dumps({"baseline": None, "model_info": {"preact_small": {"link": link}}}))
    with pytest.warns(UserWarning, match="counts as missing"):
        assert grid_file.kept([tmp_path]) == grid_file.Said()


@pytest.mark.parametrize("said", [{"title": 3}, {"extra_data": "no"}, {"colour": "red"}, [], "text"])
def test_what_is_no_model_info_counts_as_missing(said: Any, tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text(json.dumps({"baseline": "none", "model_info": {"preact_small": said}}))
    with pytest.warns(UserWarning, match="counts as missing"):
        assert grid_file.kept([tmp_path]) == grid_file.Said()


def test_a_grid_keeps_it_and_names_no_row_by_it(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(json.dumps(GRID))
    results = str(tmp_path / "results")
    plain = run_grid(str(path), results=results)
    told = run_grid(str(path), results=results, model_info={"mnist_small": ABOUT})
    assert [row["key"] for row in told] == [row["key"] for row in plain]
    assert told == plain  # nothing ran again
    kept = grid_file.kept([tmp_path / "results" / "some"])
    assert kept.models == {"mnist_small": ModelInfo(**ABOUT)}
    assert "Towards" in (tmp_path / "results" / "some" / "index.html").read_text()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"mnist_smal": {}}, 'model_info says something of "mnist_smal".*did you mean "mnist_small"'),
        ({"mnist_small": {"titel": "x"}}, 'has no setting "titel".*did you mean "title"'),
        ({"mnist_small": {"link": "ftp://example.org"}}, "must be an address that begins with http"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path: Path, said: Any, words: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(json.dumps(GRID))
    with pytest.raises(ConfigError, match=words):
        run_grid(str(path), results=str(tmp_path / "results"), model_info=said, dry_run=True)
