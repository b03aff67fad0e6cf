"""A grid's page has pictures of what ran, whoever ran it, and no figure hangs on them."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import robustbench_local as rbl
from robustbench_local.audit import escalation
from robustbench_local.cli.main import main
from robustbench_local.gallery import panel as gallery_panel
from robustbench_local.gallery.published import draw_missing
from robustbench_local.report.panel import COLUMNS, IMAGE, NEAREST, Panel, panel_name, read_panel
from robustbench_local.report.panel_view import PanelView
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from robustbench_local.training.builder import ModelBuilder
from tests.helpers.shown_panels import shown_panels


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an audit finds is of no account here."""
    monkeypatch.setattr(escalation, "EFFORT", 0.01)


def run(home: Path, **overrides: Any) -> list[Row]:
    settings: dict[str, Any] = {"n": 20, "source": "bundled", "models": ["mnist_small"], "defenses": ["none"]}
    settings |= {"attacks": ["fgsm", {"pgd": {"steps": 4}}], "threats": ["linf:0.1"], "device": "cpu"}
    settings |= {"results": str(home)}
    return rbl.run_grid("mnist_pgd", **settings | overrides)


def panels(home: Path) -> list[Panel]:
    store = Store(home / "mnist_pgd")
    found = {panel_name(row): read_panel(store, row) for row in store.rows()}
    return [panel for _, panel in sorted(found.items()) if panel is not None]


def shown(home: Path) -> list[PanelView]:
    """What the page of a grid shows."""
    return shown_panels(Results.read([home / "mnist_pgd"]))


def test_the_strongest_attack_of_each_model_and_threat_is_shown(tmp_path: Path) -> None:
    rows = run(tmp_path, defenses=["none", {"bit_depth": {"bits": 3}}], threats=["linf:0.1", "l2:1"])
    found = panels(tmp_path)
    assert len(found) == 4 and {each.threat for each in found} == {"linf:0.1", "l2:1"}
    by_key = {row.key: row for row in rows}
    for panel in found:
        shown = by_key[panel.row]
        rivals = [row for row in rows if (row.of_group(), row.threat) == (shown.of_group(), shown.threat)]
        assert len(rivals) == 2
        robust = [row.results["robust_accuracy"] for row in rivals]
        assert shown.results["robust_accuracy"] == min(robust)
        arrays = Store(tmp_path / "mnist_pgd").arrays(shown.key)
        broken = int((arrays["clean"] & ~arrays["robust"]).sum())
        assert (panel.fell, panel.looked) == (broken, 20) and panel.columns == list(COLUMNS)
        assert [each["rank"] for each in panel.samples][:: len(panel.samples) - 1] == [1, broken]
        for each in panel.samples:
            place = int(np.flatnonzero(arrays["ids"] == each["id"])[0])
            assert each["before"]["name"] == str(arrays["clean_predicted"][place]) == each["label"]
            assert each["after"]["name"] == str(arrays["predicted"][place]) != each["label"]
            assert each["distance"] == pytest.approx(arrays["distance"][place], rel=1e-3)
            assert each["nearest"]["distance"] <= each["distance"] and each["nearest"]["name"] == each["after"]["name"]
            assert -1 <= each["correlation"] <= 1
    assert not (tmp_path / "mnist_pgd" / "running").exists()


def test_the_sheet_shows_the_image_and_its_twin(tmp_path: Path) -> None:
    (row,) = run(tmp_path, attacks=["fgsm"], save="x_adv")
    (panel,) = panels(tmp_path)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(panel.webp))).convert("L"), np.float64) / 255
    x, _ = rbl.load_data("mnist", n=20, source="bundled")
    x_adv = Store(tmp_path / "mnist_pgd").arrays(row.key)["x_adv"]
    for k, each in enumerate(panel.samples):
        tiles = [sheet[28 * k : 28 * k + 28, 28 * c : 28 * c + 28] for c in range(2)]
        for tile, image in zip(tiles, (x[each["id"], 0].numpy(), x_adv[each["id"], 0]), strict=True):
            assert np.abs(tile - image).mean() < 0.05 and np.corrcoef(tile.ravel(), image.ravel())[0, 1] > 0.97
        wrong = x[(each["id"] + 1) % 20, 0].numpy()  # the twin: another image
        assert np.abs(tiles[0] - wrong).mean() > 0.05


def test_rows_are_named_and_measured_as_without_pictures(tmp_path: Path) -> None:
    with_some, without = run(tmp_path / "a"), run(tmp_path / "b", pictures=0)
    assert [row.key for row in with_some] == [row.key for row in without]
    assert [row["arrays"] for row in with_some] == [row["arrays"] for row in without]
    assert panels(tmp_path / "a") and not panels(tmp_path / "b")
    assert not (tmp_path / "b/mnist_pgd/pictures").exists()
    assert [len(shown(tmp_path / each)) for each in "ab"] == [1, 0]
    assert [len(panel.samples) for panel in panels(tmp_path / "a")] == [9]
    run(tmp_path / "c", pictures=3)
    assert [len(panel.samples) for panel in panels(tmp_path / "c")] == [3]


@pytest.mark.slow  # processes that each load torch
def test_workers_draw_the_same(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "workers", executor="local", workers=2)
    assert len(panels(tmp_path / "whole")) == 1 and panels(tmp_path / "whole") == panels(tmp_path / "workers")


def test_a_cell_that_is_done_in_parts_has_the_pictures_of_one_go(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "parts", shard=10)
    whole, parts = (panels(tmp_path / each) for each in ("whole", "parts"))
    assert [each["id"] for each in parts[0].samples] == [each["id"] for each in whole[0].samples]
    for a, b in zip(parts[0].samples, whole[0].samples, strict=True):
        assert a["after"]["name"] == b["after"]["name"]
        assert a["distance"] == pytest.approx(b["distance"], rel=1e-3)


def test_what_was_done_before_is_not_drawn_anew_and_a_weaker_attack_replaces_nothing(tmp_path: Path) -> None:
    run(tmp_path, attacks=[{"pgd": {"steps": 4}}])
    (first,) = panels(tmp_path)
    file = next((tmp_path / "mnist_pgd/pictures").iterdir())
    before = file.stat().st_mtime_ns
    run(tmp_path)
    assert panels(tmp_path) == [first] and file.stat().st_mtime_ns == before
    file.unlink()
    run(tmp_path)  # all rows are there: nothing runs, so there is nothing to show
    assert not panels(tmp_path)


OWN = """
import torch
import robustbench_local as rbl
from robustbench_local.core.defense import Defended, Rejection

NET = rbl.load_model("zoo:mnist/none")

def scores(x):
    return NET(torch.from_numpy(x)).detach().numpy()

class Detector(Defended):
    rejects = Rejection.DETECTION

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, x, draws=None):
        logits = self.net(x)
        return torch.cat([logits, 40 * (x.mean((1, 2, 3)) - 0.21)[:, None]], 1)

class Noisy(Defended):
    stochastic = True

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, x, draws=None):
        return self.net(x + 0.05 * draws.normal(*x.shape[1:]))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pictured.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_model_that_shows_no_gradients_has_no_saliency_and_says_so(tmp_path: Path) -> None:
    model = {"name": "own_pictured.py:scores", "about": {"access": "scores", "classes": 10}}
    run(tmp_path, models=[model], attacks=[{"square": {"steps": 60}}], threats=["linf:0.3"])
    (panel,) = panels(tmp_path)
    assert panel.columns == [*IMAGE, NEAREST] and panel.samples
    assert panel.notes == ["No saliency map: it needs gradients, and the model grants scores."]
    assert {each["correlation"] for each in panel.samples} == {None}
    assert shown(tmp_path)[0].notes == panel.notes


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Detector", "Noisy"])
def test_detectors_and_random_models_have_pictures_too(tmp_path: Path, name: str) -> None:
    (row,) = run(tmp_path, models=[f"own_pictured.py:{name}"], attacks=[{"pgd": {"steps": 6}}], threats=["linf:0.15"])
    assert row.ok
    (panel,) = panels(tmp_path)
    assert panel.fell and panel.columns == list(COLUMNS)
    for each in panel.samples:
        assert each["before"]["name"] == each["label"] != each["after"]["name"] != "rejected"


def test_where_nothing_fell_robust_images_are_shown(tmp_path: Path) -> None:
    run(tmp_path, attacks=["fgsm"], threats=["linf:0.0001"])
    (panel,) = panels(tmp_path)
    assert panel.fell == 0 and NEAREST not in panel.columns
    assert {(each["rank"], each["nearest"]) for each in panel.samples} == {(0, None)}
    assert "broke none of the 20 images" in shown(tmp_path)[0].rule


def test_an_attack_that_came_nearer_is_named(tmp_path: Path) -> None:
    run(tmp_path, attacks=[{"pgd": {"steps": 4}}, {"fmn": {"steps": 60}}], threats=["linf:0.3"])
    (panel,) = panels(tmp_path)
    nearer = [each["reached"] for each in panel.samples if each["reached"]]
    if panel.attack == "pgd":
        assert nearer and {each["attack"] for each in nearer} == {"fmn"}
    for each in panel.samples:
        assert each["reached"] is None or each["reached"]["distance"] < each["nearest"]["distance"]


def test_pictures_that_fail_stop_no_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(gallery_panel, "sprite", dies)
    rows = run(tmp_path)
    assert all(row.ok for row in rows) and not panels(tmp_path)


def test_published_rows_get_pictures_from_the_same_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    (drawn,) = panels(tmp_path)
    shutil.rmtree(tmp_path / "mnist_pgd/pictures")
    folder = tmp_path / "mnist_pgd"
    assert main(["gallery", str(folder), "--pictures", "--source", "bundled", "--device", "cpu"]) == 0
    assert "9 images of pgd" in capsys.readouterr().out
    (again,) = panels(tmp_path)
    assert (again.row, again.fell, again.looked) == (drawn.row, drawn.fell, drawn.looked)
    for a, b in zip(again.samples, drawn.samples, strict=True):
        assert (a["id"], a["rank"], a["after"]["name"]) == (b["id"], b["rank"], b["after"]["name"])
        assert a["after"]["confidence"] == pytest.approx(b["after"]["confidence"], abs=1e-3)
    assert len(shown(tmp_path)) == 1
    builder = ModelBuilder(torch.device("cpu"), "bundled")
    assert list(draw_missing(Results.read([folder]), builder, 9)) == []  # it has some
    assert main(["gallery", str(folder), "--pictures", "0"]) == 2


def test_the_page_links_the_gallery_where_there_is_one(tmp_path: Path) -> None:
    run(tmp_path, attacks=["fgsm"], save="x_adv")
    folder = tmp_path / "mnist_pgd"
    assert "gallery.html" not in (folder / "index.html").read_text(encoding="utf-8")
    assert main(["gallery", str(folder), "--source", "bundled", "--device", "cpu", "--each", "1"]) == 0
    assert re.search(r'<a href="gallery.html">', (folder / "index.html").read_text(encoding="utf-8"))
