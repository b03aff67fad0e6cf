"""The gallery and what rows tell it: which images, and what would be imported or read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import robustbench_local as rbl
from robustbench_local.errors import DataError
from robustbench_local.report.gallery import write_gallery
from robustbench_local.report.rebuild import images_of
from robustbench_local.report.results import Results
from robustbench_local.workshop import Workshop


def workshop() -> Workshop:
    return Workshop(torch.device("cpu"), "bundled")


def test_what_an_attacker_changed_is_told_from_what_the_weather_did(tmp_path: Path) -> None:
    """Under a corruption an attack starts from corrupted images: these are the clean ones of the page."""
    rbl.run_grid(
        "mnist_pgd", n=8, source="bundled", results=str(tmp_path), save="x_adv", threats=["linf:0.05"],
        models=["mnist_small"], defenses=["none"], attacks=["fgsm"], attack_under="mnist_fog:3",
    )  # fmt: skip
    results = Results.read([tmp_path / "mnist_pgd"])
    (row,) = results.rows
    images = images_of(row, workshop())
    change = torch.from_numpy(results.arrays(row, "x_adv")["x_adv"]) - images[torch.arange(8)]
    assert 0.02 < change.abs().max() <= 0.05 + 1e-6
    text = write_gallery(results, tmp_path, workshop(), each=1).read_text(encoding="utf-8")
    assert {float(length) <= 0.0501 for length in re.findall(r"L∞ distance ([\d.]+)", text)} == {True}
    other = json.loads(json.dumps(row))
    other["definition"]["attack_under"]["version"] = 99
    with pytest.raises(DataError, match="another corruption"):
        images_of(other, workshop())
