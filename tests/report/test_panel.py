"""Pictures on the page: what is said of each, and what becomes of files that are not as they were written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.gallery.sprite import sprite
from robustbench_local.report import detail
from robustbench_local.report.panel import COLUMNS, Panel, keep_panel, panel_name, read_panel
from robustbench_local.report.panel_view import sentence, view
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.row import Row
from robustbench_local.storage.sealing import sealed, written
from robustbench_local.storage.store import Store
from tests.helpers.browser import EVIL, Visit, launched
from tests.helpers.rows import a_row, stored
from tests.helpers.shown_panels import shown_panels


def a_sample(**about: Any) -> dict[str, Any]:
    return {
        "id": 17,
        "label": "cat",
        "rank": 1,
        "before": {"name": "cat", "confidence": 0.973},
        "after": {"name": "dog", "confidence": 0.6},
        "factor": 15.9,
        "distance": 0.0314,
        "nearest": {"distance": 0.0035, "levels": 0.9, "pixels": 31, "name": "dog"},
        "reached": None,
        "correlation": 0.47,
    } | about


def a_panel(row: Row, count: int = 9, **about: Any) -> Panel:
    webp, side = sprite([torch.linspace(0, 1, count).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)] * len(COLUMNS))
    return replace(
        Panel(
            row=row.key,
            attack="pgd",
            threat="linf:8/255",
            minimises=False,
            fell=9,
            looked=24,
            side=side,
            columns=list(COLUMNS),
            notes=[],
            samples=[a_sample(id=17 + k, rank=k + 1) for k in range(count)],
            webp=base64.b64encode(webp).decode(),
        ),
        **about,
    )


@pytest.mark.parametrize(
    ("norm", "about", "said"),
    [
        ("linf", {}, "#17, cat: at most 0.9 grey levels at 31 pixels make it a dog"),
        (
            "l2",
            {"nearest": {"distance": 0.31, "levels": 12.4, "pixels": 1024, "name": "airplane"}},
            "#17, cat: a change of L2 length 0.31, at most 12 grey levels at 1,024 pixels, makes it an airplane",
        ),
        (
            "l0",
            {"nearest": {"distance": 1.0, "levels": 200.0, "pixels": 1, "name": "7"}},
            "#17, cat: 1 pixel makes it 7",
        ),
        (
            "linf",
            {"reached": {"distance": 0.0021, "attack": "fmn"}},
            "#17, cat: at most 0.9 grey levels at 31 pixels make it a dog; fmn needs a distance of only 0.0021",
        ),
        ("none", {"nearest": None}, "#17, cat: L2 distance 0.0314 makes it a dog"),
        (
            "linf",
            {"nearest": None, "rank": 0, "after": {"name": "cat", "confidence": 0.4}},
            "#17, cat: what was tried leaves it a cat",
        ),
    ],
)
def test_each_image_in_a_sentence(norm: str, about: dict[str, Any], said: str) -> None:
    assert sentence(a_sample(**about), norm) == said


def test_first_median_and_last_are_seen_at_once_and_the_rule_is_said() -> None:
    row, _ = a_row([1, 0])
    seen = view(a_panel(row))
    assert [each.fate for each in seen.first] == ["first to fall", "5 of 9, the median", "last to fall"]
    assert [tile.row for each in seen.first for tile in each.tiles[:1]] == [0, 4, 8] and len(seen.more) == 6
    assert "the first to fall, the median, the last" in seen.rule and "fewest forward passes" in seen.rule
    assert "nearest first" in view(a_panel(row, minimises=True)).rule
    even = view(replace(a_panel(row, fell=28), samples=[a_sample(rank=rank) for rank in (1, 15, 28)]))
    assert [each.fate for each in even.first] == ["first to fall", "15 of 28, the median", "last to fall"]
    assert "others" in seen.rule and "others" not in even.rule
    one = view(a_panel(row, 1, fell=1))
    assert [each.fate for each in one.first] == ["the only one to fall"] and not one.more
    assert "broke none" in view(a_panel(row, fell=0)).rule


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Store, Row]:
    store = stored(tmp_path, a_row([1, 0, 1, 0]))
    (row,) = store.rows()
    keep_panel(store, row, a_panel(row))
    return store, row


def test_what_was_kept_is_read_again(kept: tuple[Store, Row]) -> None:
    store, row = kept
    assert read_panel(store, row) == a_panel(row)
    assert panel_name(row) != panel_name(a_row([1, 0], threat="linf:4/255")[0])
    assert panel_name(row) == panel_name(a_row([1, 0], attack="apgd")[0])  # one for all attacks


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("webp", "not base64!", "no base64"),
        ("webp", base64.b64encode(b"GIF89a" + bytes(20)).decode(), "no WebP"),
        ("webp", base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt ").decode(), "no WebP"),
        ("webp", ");background:url(https://127.0.0.1/", "no base64"),
        ("samples", [{"id": "17"}], "samples"),
        ("columns", ["image", "something else"], "columns"),
        ("side", -1, "side"),
    ],
)
def test_a_strangers_pictures_are_looked_at_before_they_are_shown(
    kept: tuple[Store, Row], key: str, value: Any, fault: str
) -> None:
    store, row = kept
    path = store.folder / "pictures" / panel_name(row)
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_bytes(written(sealed(record | {key: value})))
    with pytest.warns(UserWarning, match=fault):
        assert read_panel(store, row) is None


def test_a_file_that_was_cut_short_counts_as_missing(kept: tuple[Store, Row]) -> None:
    store, row = kept
    path = store.folder / "pictures" / panel_name(row)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="counts as missing"):
        assert read_panel(store, row) is None
    assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()


def test_pictures_of_other_rows_are_not_shown(kept: tuple[Store, Row]) -> None:
    store, row = kept
    assert len(shown_panels(Results.of([row], store))) == 1
    keep_panel(store, row, replace(a_panel(row), row="0" * 24))
    assert not shown_panels(Results.of([row], store))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    store = stored(tmp_path, a_row([1, 0, 1, 0]), audited=False)
    (row,) = store.rows()
    evil = a_sample(label=EVIL, after={"name": EVIL, "confidence": 0.5})
    keep_panel(store, row, a_panel(row, notes=[EVIL], samples=[evil] + [a_sample() for _ in range(8)]))
    write_report(Results.of([row], store), store.folder)
    return store.folder / "index.html"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_tiles_are_drawn_from_the_file_alone(browser: Any, shown: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, shown, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=False)
    visit.page.locator("tr.row .name > button").first.click()
    tile = visit.page.locator(".tile:visible")
    assert tile.count() == 3 * len(COLUMNS)
    boxes = [tile.nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["width"] == boxes[0]["height"] > 60 and boxes[0]["x"] < boxes[1]["x"]
    styles = (
        "tiles => tiles.map(tile => getComputedStyle(tile))"
        ".map(style => [style.backgroundImage, style.backgroundPosition])"
    )
    found = visit.page.eval_on_selector_all(".tile", styles)
    assert all(image.startswith('url("data:image/webp;base64,') for image, _ in found)
    places = [place for _, place in found]
    assert len(set(places)) == 9 * len(COLUMNS)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in visit.requests if not url.startswith("data:image/")] == [shown.as_uri()]
    assert visit.trouble == [] and "owned" not in visit.page.title()
    visit.context.close()


def test_the_pictures_can_be_read_by_ear(browser: Any, shown: Path) -> None:
    visit = Visit(browser, shown, bypass_csp=True)
    visit.page.locator("tr.row .name > button").first.click()
    visit.page.locator("section.panel summary").first.click()
    assert visit.violations() == []
    labels = visit.page.eval_on_selector_all("[role=img]", "tiles => tiles.map(t => t.ariaLabel)")
    assert {*labels} == {*COLUMNS}
    visit.context.close()


def test_of_many_models_the_first_alone_have_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path, *(a_row([1, 0, 1, 0], defense=name) for name in ("none", "jpeg", "trades")))
    for row in store.rows():
        keep_panel(store, row, a_panel(row))
    assert len(shown_panels(Results.of(store.rows(), store))) == 3
    monkeypatch.setattr(detail, "_PICTURED", 1)
    assert len(shown_panels(Results.of(store.rows(), store))) == 1
