"""The static site, as a publisher makes it and a reader sees it: headless Chromium, from files on disk."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from robustbench_local.cli.main import main
from robustbench_local.core.errors import ConfigError, StoreError
from robustbench_local.report import grid_file
from robustbench_local.report.citation import bibtex
from robustbench_local.report.history import history
from robustbench_local.report.model_info import ModelInfo
from robustbench_local.report.results import Results
from robustbench_local.report.site import write_site
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.browser import EVIL, Visit, launched
from tests.helpers.rows import a_row, stored

ROOT = Path(__file__).parents[2]
N = 24
TRAINED = {"families": ["adversarial training"]}
ENTRY = "@article{key,\n  title={Robust \u202e models}\n}"


def made(kept: int, day: str, **about: Any) -> tuple[Row, np.ndarray]:
    row, bits = a_row([1] * kept + [0] * (N - kept), ids=f"0:{N}", **about)
    return Row(row, created=f"{day}T10:00:00+00:00", environment={"robustbench_local": "0.2.0"}), bits


def grids(results: Path) -> None:
    """Two grids: one of two days, of which the second adds an attack; one of hostile names and a corruption."""
    first = stored(
        results / "first_grid",
        made(20, "2026-01-05", defense="trades", **TRAINED),
        made(4, "2026-01-05"),
        made(18, "2026-02-07", defense="trades", attack="square", access="scores", **TRAINED),
        made(3, "2026-02-07", attack="square", access="scores"),
    )
    grid_file.keep(first.folder, grid_file.Said(None, {"preact_small": ModelInfo(title=EVIL, bibtex=ENTRY)}))
    evil = {"defense": EVIL, "model": EVIL}
    weather = {"attack": "fog", "access": "none", "threat": "none", "corruption": "CIFAR-10-C"}
    stored(
        results / "a & b",
        made(9, "2026-03-01", data="mnist", attack=EVIL, **evil),
        made(12, "2026-03-01", attack_settings={"severity": 3}, **weather),
        corrupted=lambda bits: bits,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    grids(folder / "results")
    assert main(["site", str(folder / "results"), "--into", str(folder / "public"), "--title", f"Ours {EVIL}"]) == 0
    return folder / "public"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


class Reader(Visit):
    def __init__(self, browser: Any, path: Path, fragment: str = "", **context: Any) -> None:
        super().__init__(browser, path, fragment, **context)
        self.page.wait_for_selector("html[data-ready]")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_results_give_the_same_files(site: Path, tmp_path: Path) -> None:
    for time in (0, 2_000_000_000):  # of the files read
        for path in (site.parent / "results").rglob("*"):
            os.utime(path, (time, time))
        write_site([site.parent / "results"], tmp_path / str(time), f"Ours {EVIL}")
        assert files(tmp_path / str(time)) == files(site)
    kept = Store(site.parent / "results" / "first_grid")
    assert len(list((kept.folder / "rows").glob("*.json"))) == 4, "the results are as they were"


def test_every_link_leads_to_a_file_of_the_site(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    links = [unquote(link) for link in re.findall(r'href="([^"#:]+)"', text)]
    assert {"first_grid/rows.tar.xz", "first_grid/table.csv", "a & b/index.html", "cite.bib"} <= {
        link.replace("&amp;", "&") for link in links
    }
    assert [link for link in links if not (site / link.replace("&amp;", "&")).is_file()] == []


def test_the_archive_has_all_rows(site: Path, tmp_path: Path) -> None:
    shutil.copy(site / "first_grid" / "rows.tar.xz", tmp_path)
    was = Store(site.parent / "results" / "first_grid")
    assert Store(tmp_path).rows() == was.rows() and Store(tmp_path).audits() == was.audits()


def test_the_index_answers_dates_and_cites(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "Only adversarial training withstands: 18 of 24 CIFAR-10 images, at most." in text
    assert "Under corruptions preact_small, undefended is right on 50.0 %" in text
    for word in ("measured until 2026-03-01", "2026-01-05 to 2026-02-07", "robustbench_local <bdi>0.2.0</bdi>"):
        assert word in text
    bib = (site / "cite.bib").read_text(encoding="utf-8")
    assert bib.count("@") == 2 and "Robust \\u202e models" in bib and "\u202e" not in bib


def test_the_software_is_cited_as_its_file_says() -> None:
    """Held against CITATION.cff; the broken twin is any other version."""
    known = dict(
        re.findall(r'^(title|version|date-released): "?([^"\n]+)"?$', (ROOT / "CITATION.cff").read_text(), re.M)
    )
    (author,) = re.findall(r'- name: "([^"]+)"', (ROOT / "CITATION.cff").read_text())
    entry = bibtex().replace("\\_", "_")
    assert f"title = {{{{{known['title']}}}}}" in entry and f"author = {{{{{author}}}}}" in entry
    assert f"version = {{{known['version']}}}" in entry and f"year = {{{known['date-released'][:4]}}}" in entry


def test_history_is_what_was_known_by_the_end_of_each_day(site: Path) -> None:
    found = history([Store(site.parent / "results" / "first_grid")])
    assert found.days == ("2026-01-05", "2026-02-07")
    ((table, models),) = found.tables
    assert table == "CIFAR-10, L∞ ball of radius 8/255, 24 images"
    figures = {model: [rate and round(N * rate.value) for rate in rates] for model, rates in models}
    assert figures == {"preact_small with trades": [20, 18], "preact_small, undefended": [4, 3]}


def test_a_day_that_changes_nothing_is_left_out_and_runs_are_told_apart(tmp_path: Path) -> None:
    same = [made(20, "2026-01-05"), made(20, "2026-01-06", attack="fgsm"), made(7, "2026-01-07", attack="square")]
    one = stored(tmp_path / "one" / "grid", *same)
    assert history([one]).days == ("2026-01-05", "2026-01-07")
    other = stored(tmp_path / "two" / "grid", made(2, "2026-01-09"))
    found = history([one, other])
    assert found.days == ("2026-01-05 (one)", "2026-01-07 (one)", "2026-01-09 (two)")
    (listed,) = write_site([tmp_path / "one", tmp_path / "two"], tmp_path / "public", "title")
    assert listed.last == "2026-01-09" and listed.answer[0].startswith("preact_small, undefended does not withstand")


def test_it_is_not_written_over_results(tmp_path: Path) -> None:
    grids(tmp_path / "results")
    before = files(tmp_path)
    for into in (tmp_path / "results", tmp_path / "results" / "first_grid"):
        with pytest.raises(ConfigError, match="written over the results"):
            write_site([tmp_path / "results"], into, "title")
    assert files(tmp_path) == before


def test_what_cannot_be_read_is_left_out_by_name(tmp_path: Path) -> None:
    grids(tmp_path / "results")
    for path in (tmp_path / "results" / "first_grid" / "rows").glob("*.npz"):
        path.unlink()
    with pytest.warns(UserWarning, match="first_grid is left out"):
        assert [grid.name for grid in write_site([tmp_path / "results"], tmp_path / "public", "title")] == ["a & b"]
    shutil.rmtree(tmp_path / "results" / "a & b")
    with pytest.warns(UserWarning), pytest.raises(StoreError, match="can be read"):
        write_site([tmp_path / "results"], tmp_path / "public", "title")


def test_ticked_models_stand_side_by_side_offline(browser: Any, site: Path) -> None:
    visit = Reader(browser, site / "index.html")
    boxes = visit.page.locator(".choice input")
    assert boxes.count() == 4
    visit.page.locator(".choice", has_text="trades").locator("input").check()
    visit.page.locator(".choice", has_text="preact_small, undefended first_grid").locator("input").check()
    table = visit.page.locator("table.beside")
    assert table.locator("thead th").count() == 3
    (row,) = table.locator("tbody tr").all_inner_texts()
    for word in ("CIFAR-10, L∞ ball of radius 8/255, 24 images", "75.0", "12.5", "over 2 attacks; clean 100.0"):
        assert word in row
    visit.page.fill("#find", "no such model")
    assert visit.page.locator(".choice:visible").count() == 2  # what is ticked stays
    fragment = visit.page.evaluate("location.hash")
    again = Reader(browser, site / "index.html", fragment)
    assert again.page.locator("table.beside tbody tr").all_inner_texts() == [row]
    again.context.close()
    visit.page.fill("#find", "")
    for box in boxes.all():
        box.check()
    assert "accuracy under corruptions" in table.inner_text()
    assert visit.requests == [(site / "index.html").as_uri()]
    assert visit.trouble == []
    assert visit.page.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert visit.page.title().startswith("Ours <img")
    visit.context.close()


def test_a_grid_is_a_click_away(browser: Any, site: Path) -> None:
    visit = Reader(browser, site / "index.html")
    visit.page.locator("h2 a", has_text="a & b").click()
    visit.page.wait_for_selector("html[data-ready]")
    assert "a & b" in visit.page.inner_text(".kicker") and visit.trouble == []
    visit.context.close()


def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, site: Path) -> None:
    visit = Reader(browser, site / "index.html", viewport={"width": 390, "height": 740}, has_touch=True)
    for box in visit.page.locator(".choice input").all():
        box.check()
    for summary in visit.page.locator("summary").all():
        summary.click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    visit.context.close()


def test_without_scripts_the_index_is_whole_but_for_the_comparison(browser: Any, site: Path) -> None:
    visit = Visit(browser, site / "index.html", java_script_enabled=False)
    assert "This needs JavaScript" in visit.page.inner_text("noscript")
    assert visit.page.locator("section.grid").count() == 2
    visit.context.close()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.slow),
        pytest.param("dark", 1280, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_violation(browser: Any, site: Path, scheme: str, width: int) -> None:
    visit = Reader(
        browser, site / "index.html", color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    for box in visit.page.locator(".choice input").all():
        box.check()
    for summary in visit.page.locator("summary").all():
        summary.click()
    assert visit.violations() == []
    visit.page.evaluate("document.querySelector('.find').replaceWith(document.createElement('input'))")
    assert "label" in dict(visit.violations())
    visit.context.close()


def test_results_are_what_the_pages_are_of(site: Path) -> None:
    page = (site / "first_grid" / "index.html").read_text(encoding="utf-8")
    assert "Only adversarial training withstands" in page
    assert Results.read([site / "first_grid"]).tables()[0].lines[0].worst[-1] is not None
