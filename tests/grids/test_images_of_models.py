"""Photographs take the size, and the numbers of classes, that the models declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.run import run

OWN = """
import torch
from torch import nn

class Grey(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), 0.5 - x.mean((1, 2, 3))], 1)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own_grey.py").write_text(OWN)
    for name, level in (("dark", 20), ("light", 220)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place, size in enumerate(((40, 30), (33, 50), (28, 28))):
            Image.fromarray(np.full((*size, 3), level, np.uint8)).save(tmp_path / "photos" / name / f"{place}.png")
    text = "data: folder:photos\nmodels: own_grey.py:Grey\nattacks: fgsm\nthreats: linf:8/255\n"
    (tmp_path / "photos.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*about: dict[str, Any], **others: Any) -> Grid:
    models = [{"name": "own_grey.py:Grey", "about": each} for each in about]
    return Grid.open("photos.yaml", {"models": models, **others}, Progress())


def test_the_size_and_the_names_are_the_model_s() -> None:
    grid = opened({"shape": [3, 24, 20], "resize": 26, "classes": ["light", "dark"]})
    images = grid.images["folder:photos", None]
    assert images[:].shape == (6, 3, 24, 20) and images.classes == ("light", "dark")
    assert images.transform is not None and images.transform.definition() == {"resize": 26, "crop": [24, 20]}
    assert images.labels.tolist() == [int(each < 0.5) for each in images[:].mean((1, 2, 3))]
    (row,) = run(grid)
    assert row.ok and row.results["clean_accuracy"] == 1.0
    assert row.definition["model_about"]["shape"] == [3, 24, 20]


def test_what_the_grid_says_goes_first() -> None:
    images = opened({"shape": [3, 0, 0]}, crop=16).images["folder:photos", None]
    assert images[:].shape == (6, 3, 16, 16) and images.classes == ("dark", "light")


def test_models_that_disagree_are_named() -> None:
    with pytest.raises(ConfigError, match=r"several sizes, .*crop=\[24, 24\].*give each a grid"):
        opened({"shape": [3, 24, 24]}, {"shape": [3, 16, 16]})
    with pytest.raises(ConfigError, match="name the classes of folder:photos differently"):
        opened({"classes": ["light", "dark"]}, {"classes": ["dark", "light"]}, crop=16)
