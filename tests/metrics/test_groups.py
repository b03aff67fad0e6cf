"""Groups of images as a user names them: what is nowhere is named, whatever single tables lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.cli.main import main
from robustbench_local.core.errors import DataError
from robustbench_local.report.metrics import write_metrics
from robustbench_local.storage.row import Row
from tests.helpers.rows import a_row, stored


def made(n: int, classes: tuple[str, str], **about: Any) -> tuple[Row, np.ndarray]:
    """n images of two classes in turn."""
    row, bits = a_row([1] * n, **{"ids": f"0:{n}"} | about)
    each = {"n": n // 2, "clean": 1.0, "robust": 1.0, "robust_interval": [0, 1]}
    row["results"] |= {"classes": 2, "per_class": [each | {"class": name} for name in classes]}
    return row, bits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cats and dogs on 40 images and, by another attack, on 20 of them; and digits, which are neither."""
    stored(
        tmp_path / "rows_of",
        made(40, ("cat", "dog")),
        made(20, ("cat", "dog"), attack="one_pixel"),
        made(30, ("one", "two"), data="mnist"),
    )
    return tmp_path / "rows_of"


def given(folder: Path, groups: dict[str, list[str | int]]) -> Path:
    path = folder / "groups.json"
    path.write_text(json.dumps(groups))
    return path


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ([17, 40], 'group "mine" names the images 40, which are not there: known are 40 in 0 .. 39'),
        ([-1], "names the images -1"),
        ([10**30], f"names the images {10**30}"),
        (["cat", "kat"], "names the classes kat, which are not there: known are cat, dog, one, two"),
        ([*range(40, 60)], "names the images 40, 41, 42, 43, 44 and 15 more"),
    ],
)
def test_what_is_nowhere_is_named(
    folder: Path, listed: list[str | int], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError) as error:
        write_metrics(folder, given(folder, {"mine": listed}))
    assert words in str(error.value)
    assert main(["metrics", str(folder), "--groups", str(folder / "groups.json")]) == 2
    assert "error: group" in capsys.readouterr().err
    assert not (folder / "metrics.md").exists()


def test_what_some_tables_lack_is_no_mistake(folder: Path) -> None:
    """Image 35 is in one table of three, cats are in two."""
    sheets = write_metrics(folder, given(folder, {"animals": ["cat"], "digits": ["one"], "late": [35, 37]}))
    frame = next(sheet.frame for sheet in sheets if sheet.title == "Classes and groups")
    groups = frame[frame["of"] == "groups"]
    assert sorted(zip(groups["data"], groups["name"], groups["n"], strict=True)) == [
        ("cifar10", "animals", 10),
        ("cifar10", "animals", 20),
        ("cifar10", "late", 2),
        ("mnist", "digits", 15),
    ]
