"""The assessment as a page: every number a link within it, nothing asked of anybody, names of strangers harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.audit.finding import Status
from robustbench_local.cli.main import main
from robustbench_local.report.assessment_page import write_assessment
from robustbench_local.report.results import Results
from robustbench_local.storage.packing import pack
from tests.helpers.assessed import audited, bits, cell, corrupted
from tests.helpers.browser import EVIL, Visit, launched
from tests.helpers.rows import stored

VOID = {"meta", "link", "br", "img", "wbr"}


class Outline(HTMLParser):
    """What a page is made of: ids, links, headings, elements, and the text of each table cell with its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, str, bool]] = []  # class, text, whether a link is in it
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.elements.append((tag, about))
        if tag not in VOID:
            self._open.append(tag)
        if (id := about.get("id")) is not None:
            self.ids.append(id)
        if tag == "a":
            self.links.append(about.get("href") or "")
            if "td" in self._open:
                self.cells[-1] = (*self.cells[-1][:2], True)
        if tag == "br":
            self.text += " "
        if tag == "td":
            self.cells.append((about.get("class") or "", "", False))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "title"}.isdisjoint(self._open):
            self.text += data
            if "td" in self._open:
                kind, text, linked = self.cells[-1]
                self.cells[-1] = kind, text + data, linked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attacks and corruptions, a comparison, a broken figure, a failed cell, a random model, hostile names."""
    place = tmp_path_factory.mktemp("assessment")
    evil: dict[str, Any] = {
        "model": EVIL,
        "defense": EVIL,
        "attack": EVIL,
        "flags": [EVIL],
        "data": EVIL,
        "split": EVIL,
    }
    made = [
        cell(bits(30)),
        cell(bits(25), attack="square", access="scores", budget=100, flags=["near_tie:2"]),
        cell(bits(20), attack="square", access="scores", adaptive=False),
        cell(bits(18), threat="l2:1"),
        cell(bits(12), **evil, attack_settings={EVIL: EVIL}, defense_settings={EVIL: EVIL}, transform={EVIL: 1}),
        cell(None, defense="median"),
        cell([[k < 20] * 20 for k in range(40)], defense="noise_fusion"),
        *(corrupted(36 - 7 * level, name, level) for name in ("fog", "snow") for level in range(1, 6)),
        corrupted(None, "fog", 1, defense="median"),
        corrupted(30, EVIL, 1, defense=EVIL, corruption=EVIL),
    ]
    audited(place / "now", made[0], Status.BROKEN, asked=10, broken=(0, 1))
    stored(place / "now", *made, audited=False)
    before = [
        cell(bits(38)),
        cell(bits(39), attack="square", access="scores", budget=100, defense_version=2),
        cell(bits(38), defense="gone"),
    ]
    stored(place / "before", *before, corrupted(27, "fog", 1), corrupted(38, "fog", 2))
    return place


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    results = Results.read([folder / "now"])
    before = Results.read([folder / "before"])
    write_assessment(results, folder, f"title {EVIL}", 0.5, before, {"animals": ["cat"], "others": ["dog"]})
    return folder / "assessment.html"


@pytest.fixture(scope="module")
def outline(path: Path) -> Outline:
    return Outline(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


def test_every_link_leads_somewhere_within_the_page(outline: Outline) -> None:
    assert len(outline.links) > 100
    assert all(link.startswith("#") for link in outline.links)
    assert {link[1:] for link in outline.links} <= {*outline.ids}
    assert len({*outline.ids}) == len(outline.ids)


def test_every_number_of_a_table_is_a_link(outline: Outline) -> None:
    numbers = [(text, linked) for kind, text, linked in outline.cells if kind == "num" and re.search(r"\d", text)]
    assert len(numbers) > 60
    assert [text for text, linked in numbers if not linked] == []


def test_every_row_is_in_the_annex_and_rows_of_before_apart(outline: Outline, folder: Path) -> None:
    for name, anchor in (("now", "row"), ("before", "before")):
        keys = {row.key for row in Results.read([folder / name]).rows}
        assert {id for id in outline.ids if re.fullmatch(rf"{anchor}-[0-9a-f]{{24}}", id)} == {
            f"{anchor}-{key}" for key in keys
        }


def test_nothing_is_loaded_from_anywhere(path: Path, outline: Outline) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    names = {tag for tag, _ in outline.elements}
    assert names.isdisjoint({"script", "img", "iframe", "object", "embed", "base", "form", "video"})
    assert [about.get("href") for tag, about in outline.elements if tag == "link"] == ["data:,"]
    policy = next(about["content"] for _, about in outline.elements if about.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "script-src 'none'" in policy


def test_hostile_names_are_text(path: Path, outline: Outline) -> None:
    assert "\u202e" not in path.read_text(encoding="utf-8")
    for part in ("<img src=x onerror=", "<script>document.title='owned'</script>", "\\n\\u202e", "${1}{{7*7}}"):
        assert part in outline.text
    handlers = {name for _, about in outline.elements for name in about if name.startswith("on")}
    assert handlers == set()


def test_it_is_laid_out_as_a_test_report(outline: Outline) -> None:
    order = ["identification", "method", "items", "dates", "sampling", "results", "deviations", "uncertainty"]
    order += ["conformity", "sign", "map", "rows"]
    assert [id for id in outline.ids if id in order] == order
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    tables, captions = ([tag for tag, _ in outline.elements].count(tag) for tag in ("table", "caption"))
    assert tables == captions > 10
    assert all(about.get("scope") in ("col", "row") for tag, about in outline.elements if tag == "th")
    assert ("html", {"lang": "en"}) in outline.elements
    assert outline.text.count("This report makes no claim of conformity.") == 3
    assert not re.search(r"complian|complies|certifie|conforms", outline.text, re.IGNORECASE)


def test_what_was_found_is_said(outline: Outline) -> None:
    said = " ".join(outline.text.split())
    for part in (
        "The audit says that this figure is not to be believed.",
        "Broken: a stronger attack: it succeeds. Advice: run it on all.",
        "failed, ModelError: logits are NaN",
        "Declared: 50.0 %; the audit says that the figure is not to be believed.",
        "Declared: 50.0 %; the whole interval is below it.",
        "limit 100",
        "naive, untargeted",
        "20 fresh draws an image",
        "Worst class: “dog” of 2",
        "Worst group: “others” of 2",
        "made differently: defense_version 2 -> 1",
        "only before (1): cifar10 linf:8/255, preact_small / gone, pgd",
        "2 lines, of which 1 changed by more than luck",
        "points, with power 80 %",
        "a shift of 62.5 points",
        "python 3.12",
        "2026-01-02T03:04:05+00:00",
        "End of assessment",
    ):
        assert part in said, part


def test_what_is_missing_is_said_to_be(tmp_path: Path) -> None:
    stored(tmp_path, cell(bits(30)))
    write_assessment(Results.read([tmp_path]), tmp_path)
    said = " ".join(Outline((tmp_path / "assessment.html").read_text(encoding="utf-8")).text.split())
    for part in (
        "Verified lower bound not measured",
        "Worst group: no groups are known.",
        "Declared level: none given.",
        "what drop it would have caught: no baseline given.",
        "Against a version of before: no baseline given.",
        "Accuracy under corruptions: not measured.",
        "Deviations Cells that are missing",
        "None.",
    ):
        assert part in said, part


def test_a_row_of_two_grids_is_listed_once(tmp_path: Path) -> None:
    shared = cell(bits(30))
    for name, own in (("a", cell(bits(20), attack="square", access="scores")), ("b", cell(bits(10), attack="apgd"))):
        stored(tmp_path / name, shared, own)
    write_assessment(Results.read([tmp_path]), tmp_path)
    found = Outline((tmp_path / "assessment.html").read_text(encoding="utf-8"))
    assert found.ids.count(f"row-{shared[0].key}") == 1
    assert {link[1:] for link in found.links} <= {*found.ids}
    assert "Listed above:" in found.text


def test_corruptions_alone_are_an_assessment_as_well(tmp_path: Path) -> None:
    stored(tmp_path, corrupted(30, "fog", 1))
    write_assessment(Results.read([tmp_path]), tmp_path)
    said = Outline((tmp_path / "assessment.html").read_text(encoding="utf-8")).text
    assert "Robust accuracy: not measured, since no attack is among the rows." in said


def test_the_command_writes_the_same_bytes_by_option_and_by_word(folder: Path, tmp_path: Path) -> None:
    stored(tmp_path / "a", cell(bits(30)), cell(bits(20), attack="square", access="scores"))
    (tmp_path / "groups.json").write_text('{"pets": ["cat"]}', encoding="utf-8")
    more = ["--declared", "0.5", "--before", str(folder / "before"), "--groups", str(tmp_path / "groups.json")]
    run = ["report", str(tmp_path / "a"), "--title", "same", *more]
    assert main([*run, "--format", "assessment"]) == 0
    assert {each.name for each in (tmp_path / "a").glob("*.*")} == {"assessment.html", "assessment.json"}
    pack(tmp_path / "a")
    assert main([*run, "format=assessment", "--into", str(tmp_path / "b")]) == 0
    for name in ("assessment.html", "assessment.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    record = json.loads((tmp_path / "b" / "assessment.json").read_text(encoding="utf-8"))
    assert record["declared"] == 0.5 and record["baseline"]["tested"] == 2
    assert record["subjects"][0]["conditions"][0]["worst_group"]["name"] == "pets"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--declared", "0.5"], "--declared: these are for --format assessment alone"),
        (["format=pdf"], 'there is no format "pdf": leaderboard or assessment'),
        (["format=assessment", "--declared", "45"], "a share in [0, 1]"),
    ],
)
def test_options_that_mean_nothing_are_errors(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, cell(bits(30)))
    assert main(["report", str(tmp_path), *words]) == 2
    assert why in capsys.readouterr().err
    assert not [*tmp_path.glob("*.html")]


def test_a_browser_asks_for_nothing_and_complains_of_nothing(browser: Any, path: Path) -> None:
    visit = Visit(browser, path)
    visit.page.locator("td.num a").first.click()
    visit.page.wait_for_timeout(100)
    assert {url.partition("#")[0] for url in visit.requests if not url.startswith("data:")} == {path.as_uri()}
    assert visit.trouble == []
    assert visit.page.title().startswith("Assessment of robustness: title <img")
    assert visit.page.evaluate("document.querySelectorAll('img, script').length") == 0
    visit.context.close()


def test_the_policy_forbids_what_the_page_does_not_do(browser: Any, path: Path, tmp_path: Path) -> None:
    """The broken twin: a request, an inline script and a handler put into the page are refused."""
    bad = "<img src='https://127.0.0.1:9/x.png' onerror='document.title=1'><script>document.title=1</script></main>"
    twin = tmp_path / "twin.html"
    twin.write_text(path.read_text(encoding="utf-8").replace("</main>", bad), encoding="utf-8")
    visit = Visit(browser, twin)
    visit.page.wait_for_timeout(100)
    assert len([message for message in visit.trouble if "Content Security Policy" in message]) >= 2
    assert visit.page.title() != "1"
    visit.context.close()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 360),
        pytest.param("light", 360, marks=pytest.mark.slow),
        pytest.param("dark", 1280, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_violation(browser: Any, path: Path, scheme: str, width: int) -> None:
    visit = Visit(browser, path, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    assert visit.violations() == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.page.evaluate("document.documentElement.removeAttribute('lang')")
    assert "html-has-lang" in dict(visit.violations())
    visit.context.close()


def test_it_fits_on_a4(browser: Any, path: Path) -> None:
    """180 mm between the margins are 680 pixels."""
    visit = Visit(browser, path, viewport={"width": 680, "height": 900}, color_scheme="dark")
    visit.page.emulate_media(media="print")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 680
    wide = "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 681).length"
    assert visit.page.evaluate(wide) == 0
    assert visit.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert visit.page.locator("nav").is_hidden()
    visit.context.close()
