"""The gallery: rows -> model and images again -> pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robustbench_local as rbl
from robustbench_local.cli.main import main
from robustbench_local.core.errors import DataError, ModelError, StoreError
from robustbench_local.gallery.gallery import _chosen, write_gallery
from robustbench_local.gallery.rebuild import entry, images_of, model_of
from robustbench_local.gallery.views import picture
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row
from robustbench_local.training.builder import ModelBuilder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("results")
    rbl.run_grid(
        "mnist_pgd",
        n=24,
        source="bundled",
        results=str(home),
        save="x_adv",
        threats=["linf:0.15"],
        models=["mnist_small"],
        defenses=["none", ["jpeg", "adversarial_training"]],
        attacks=["fgsm", {"pgd": {"steps": 5}}, {"fmn": {"steps": 10}}],
    )
    return home / "mnist_pgd"


def builder() -> ModelBuilder:
    return ModelBuilder(torch.device("cpu"), "bundled")


def test_a_row_tells_how_to_make_its_model_and_images_again(folder: Path) -> None:
    results = Results.read([folder])
    assert results.rows
    for row in results.rows:
        model, images = model_of(row, builder()), images_of(row, builder())
        answers = model(images[:]).argmax(1)
        clean = results.arrays(row, "clean")["clean"]
        assert np.array_equal((answers == images.labels).numpy(), clean)


def test_other_weights_and_other_images_are_refused(folder: Path) -> None:
    row = Results.read([folder]).rows[0]
    other = Row(json.loads(json.dumps(row)))
    other["definition"] |= {"weights_digest": "0" * 64, "data_digest": "0" * 64}
    with pytest.raises(ModelError, match="other weights here"):
        model_of(other, builder())
    with pytest.raises(DataError, match="are not those of row"):
        images_of(other, builder())
    other["definition"] |= {"model": "mnist_small (mine)"}
    with pytest.raises(ModelError, match="give its path"):
        model_of(other, builder())
    other["definition"] |= {"model": "mnist_small", "defense": "trades", "defense_settings": {"beta": 3.21}}
    with pytest.raises(ModelError, match="neither in the zoo nor"):
        model_of(other, builder())


def test_the_page_shows_each_fate_and_its_pictures(folder: Path) -> None:
    path = write_gallery(Results.read([folder]), folder, builder(), each=2)
    text = path.read_text(encoding="utf-8")
    for word in (
        "broken first, after",
        "robust",
        "amplified ×",
        "saliency, clean",
        "nearest error found",
        "L∞ distance",
    ):
        assert word in text
    assert "No saliency" not in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert {Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures} == {(28, 28)}
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "script" not in re.sub(r"script-src", "", text)


def test_the_change_is_amplified_by_what_the_page_says(folder: Path) -> None:
    """Clean, attacked and change are of one image: change is grey plus the stated factor times their difference."""
    text = write_gallery(Results.read([folder]), folder, builder(), each=1).read_text(encoding="utf-8")
    article = text[text.index("<article") : text.index("</article>")]
    clean, attacked, change = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), np.float64) / 255
        for data in re.findall(r"base64,([^\"]+)", article)[:3]
    )
    factor = float(re.findall(r"amplified ×([\d.]+)", article)[0])
    assert np.abs(attacked - clean).max() > 0.1
    assert np.abs(change - (0.5 + factor * (attacked - clean)).clip(0, 1)).max() < 0.5 / 255 * (1 + 2 * factor) + 0.01


def test_first_last_and_never_are_chosen_among_what_was_right() -> None:
    clean = np.array([1, 1, 1, 1, 1, 0, 1], bool)
    robust = np.array([0, 0, 0, 1, 0, 0, 1], bool)
    forwards = np.array([9, 3, 50, 99, 20, 0, 99])
    chosen = [(place, fate.partition(",")[0]) for place, fate in _chosen(clean, robust, forwards, 1)]
    assert chosen == [(1, "broken first"), (2, "broken last"), (3, "robust")]
    few = [place for place, _ in _chosen(clean, robust, forwards, 3)]
    assert few == [1, 0, 4, 2, 3, 6]  # nothing is shown twice


def test_a_defense_is_written_as_its_grid_wrote_it() -> None:
    assert entry("jpeg", {"quality": 50}) == [{"jpeg": {"quality": 50}}]
    settings = {"jpeg#1.quality": 50, "jpeg#2.quality": 75, "none.x": 1}
    assert entry("jpeg + jpeg + none", settings) == [
        {"jpeg": {"quality": 50}},
        {"jpeg": {"quality": 75}},
        {"none": {"x": 1}},
    ]


def test_the_command_and_what_it_needs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", str(folder), "--source", "bundled", "--each", "1", "--device", "cpu"]) == 0
    assert "gallery.html" in capsys.readouterr().out
    results = Results.read([folder])
    for row in results.rows:
        row["arrays"].pop("x_adv")
    with pytest.raises(StoreError, match="save=x_adv"):
        write_gallery(results, tmp_path, builder())


def test_large_pictures_stay_small_on_the_page_and_small_ones_exact() -> None:
    noise = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
    for x, kind, most in ((noise[:, :32, :28], "png", 6_000), (noise, "jpeg", 110_000)):
        head, _, body = picture(x).partition(",")
        content = base64.b64decode(body)
        assert head == f"data:image/{kind};base64" and len(content) < most
        seen = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1) / 255
        assert seen.shape == x.shape and (seen - x).abs().mean() < (0.002 if kind == "png" else 0.03)
