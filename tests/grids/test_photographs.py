"""A grid and an audit of a folder of photographs: resize and crop go wherever its images are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks._photographs import make_photographs, photograph
from robustbench_local.cli.main import main
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.errors import DataError
from robustbench_local.core.progress import Progress
from robustbench_local.data import images
from robustbench_local.data.load import open_numbered
from robustbench_local.data.transform import Transform
from robustbench_local.gallery.rebuild import images_of, model_of
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.run import run_grid
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.fitted import Fitter

MODELS = """
import torch
from torch import nn

class Warm(nn.Module):
    '''The class of an image is told by how red its middle is.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        red = x[:, 0, 4:-4, 4:-4].mean((1, 2))
        return 10 * self.scale * torch.stack([red, 1 - red], 1)
"""
GRID = """
data: folder:photos
n: 8
resize: 24
crop: [20, 16]
models: ["toys:Warm"]
attacks: [fgsm]
threats: ["linf:0.1"]
allow_chance: true
device: cpu
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toys.py").write_text(MODELS)
    (tmp_path / "toy.yaml").write_text(GRID)
    for split in ("test", "train"):
        make_photographs(tmp_path / "photos" / split, 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delitem(__import__("sys").modules, "toys", raising=False)
    return tmp_path


def test_a_grid_of_photographs_names_its_rows_by_what_became_of_them(folder: Path) -> None:
    (row,) = run_grid("toy.yaml")
    assert row.ok, row.failure
    assert row.definition["transform"] == {"resize": 24, "crop": [20, 16]}
    assert run_grid("toy.yaml")[0].created == row.created
    other = run_grid("toy.yaml", crop=16)[0]
    assert other.key != row.key and other.of_images() != row.of_images() and other.of_attack() == row.of_attack()
    assert "resize" not in run_grid("toy.yaml", resize=None, crop=16)[0].definition["transform"]
    with pytest.raises(DataError, match="resize and crop make them so"):
        run_grid("toy.yaml", resize=None, crop=None)


def test_what_an_attacker_learns_from_is_transformed_alike(folder: Path) -> None:
    grid = Grid.open("toy.yaml", {"attacks": ["universal"], "split": "train"}, Progress())
    (attacker,), (judged, *_) = grid.attackers.values(), grid.images.values()
    assert attacker[:1].shape == judged[:1].shape == (1, 3, 20, 16)
    assert not torch.isin(attacker.ids, judged.ids).any() and len(attacker) == 12


def test_a_row_of_photographs_gives_its_images_and_its_model_back(folder: Path) -> None:
    (row,) = run_grid("toy.yaml")
    builder = ModelBuilder(torch.device("cpu"))
    found = images_of(row, builder, trust=True)
    assert found[:].shape == (8, 3, 20, 16) and model_of(row, builder, trust=True) is not None
    without = row.without(["transform"])
    with pytest.raises(DataError):
        images_of(without, builder, trust=True)


def test_an_audit_takes_photographs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "toys:Warm", "data=folder:photos", "threat=linf:0.1", "n=6", "effort=0.05", "device=cpu"]
    assert main([*words, "surrogates=[]"]) == 2 and "resize and crop" in capsys.readouterr().err
    assert main([*words, "surrogates=[]", "resize=24", "crop=20", "train=4"]) in (0, 3, 4)


SCHEDULE = {"epochs": 1, "batch": 10, "validation": 10, "watched": 2}
TRAINED: dict[str, Any] = {
    "data": "folder:grey",
    "models": [{"name": "fast_cnn", "schedule": SCHEDULE}],
    "resize": None,
    "crop": 28,
    "allow_chance": True,
}


def test_models_are_trained_and_fitted_on_photographs_that_are_not_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(60):
        file = folder / "grey" / ("test" if k < 8 else "train") / f"class{k % 2}" / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        photograph(k, 40 + k, 50).convert("L").save(file)
    monkeypatch.setattr(images, "MOST_IN_MEMORY", 1000)
    overrides = TRAINED | {"defenses": ["adversarial_training", "squeeze_detector"]}
    rows = run_grid("toy.yaml", **overrides)
    assert all(row.ok for row in rows) and len(rows) == 2, [row.get("error") for row in rows]
    assert run_grid("toy.yaml", **overrides) == rows
    others = run_grid("toy.yaml", **overrides | {"resize": 40})
    assert {row.definition["weights_digest"] for row in others}.isdisjoint(
        row.definition["weights_digest"] for row in rows
    )


def test_what_a_defense_learns_from_is_numbered_as_the_model_numbers_it(folder: Path) -> None:
    def fitter(*names: str) -> Fitter:
        return Fitter("folder:photos", None, torch.device("cpu"), Progress(), None, Transform(crop=(28, 28)), names)

    net, parts = nn.Linear(2, 2), [("density_detector", find_defense("density_detector"))]
    files = {tuple(fitter(*names).files(parts, net)) for names in ((), ("class1", "class0"), ("cat", "dog"))}
    assert len(files) == 2  # what the data do not call so numbers nothing
    by_model = open_numbered(("class1", "class0"), "folder:photos", split="train", crop=28)
    plain = open_numbered((), "folder:photos", split="train", crop=28)
    assert by_model.classes == ("class1", "class0") and torch.equal(by_model.labels, 1 - plain.labels)
    with pytest.raises(DataError, match='"class1"'):
        open_numbered(("class0", "cat"), "folder:photos", crop=28)
