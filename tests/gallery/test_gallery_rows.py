"""The gallery and what rows tell it: which images, and what would be imported or read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import robustbench_local as rbl
from robustbench_local.audit import escalation
from robustbench_local.cli.main import main
from robustbench_local.config import plugins
from robustbench_local.core.errors import ConfigError, DataError
from robustbench_local.gallery.gallery import write_gallery
from robustbench_local.gallery.rebuild import foreign, images_of, model_of
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row
from robustbench_local.training.builder import ModelBuilder
from tests.helpers.rows import a_row


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an audit finds is of no account here."""
    monkeypatch.setattr(escalation, "EFFORT", 0.01)


def builder() -> ModelBuilder:
    return ModelBuilder(torch.device("cpu"), "bundled")


def test_what_an_attacker_changed_is_told_from_what_the_weather_did(tmp_path: Path) -> None:
    """Under a corruption an attack starts from corrupted images: these are the clean ones of the page."""
    rbl.run_grid(
        "mnist_pgd",
        n=8,
        source="bundled",
        results=str(tmp_path),
        save="x_adv",
        threats=["linf:0.05"],
        models=["mnist_small"],
        defenses=["none"],
        attacks=["fgsm"],
        attack_under="mnist_fog:3",
    )
    results = Results.read([tmp_path / "mnist_pgd"])
    (row,) = results.rows
    images = images_of(row, builder())
    change = torch.from_numpy(results.arrays(row, "x_adv")["x_adv"]) - images[torch.arange(8)]
    assert 0.02 < change.abs().max() <= 0.05 + 1e-6
    text = write_gallery(results, tmp_path, builder(), each=1).read_text(encoding="utf-8")
    assert {float(length) <= 0.0501 for length in re.findall(r"L∞ distance ([\d.]+)", text)} == {True}
    other = Row(json.loads(json.dumps(row)))
    other["definition"]["attack_under"]["version"] = 99
    with pytest.raises(DataError, match="another corruption"):
        images_of(other, builder())


BOOBY_TRAP = """
from pathlib import Path
import torch
from robustbench_local import load_model

def model():
    Path("called").touch()
    return load_model("zoo:mnist/none")
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose rows name a function; that it was called leaves a trace."""
    monkeypatch.chdir(tmp_path)
    Path("booby_trap.py").write_text(BOOBY_TRAP)
    rbl.run_grid(
        "mnist_pgd",
        n=6,
        source="bundled",
        results=str(tmp_path),
        save="x_adv",
        threats=["linf:0.1"],
        models=["booby_trap:model"],
        defenses=["none"],
        attacks=["fgsm"],
    )
    Path("called").unlink()
    return tmp_path / "mnist_pgd"


def test_what_strangers_rows_name_is_not_called_unless_they_are_trusted(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gallery", str(theirs), "--source", "bundled", "--device", "cpu", "--each", "1"]
    assert main(command) == 2
    assert "import and call booby_trap:model" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="import and call booby_trap:model"):
        write_gallery(Results.read([theirs]), theirs, builder())
    (row,) = Results.read([theirs]).rows
    for make in (model_of, images_of):
        with pytest.raises(ConfigError, match="--trust"):
            make(row, builder())
    assert main(["report", str(theirs)]) == 0 and main(["metrics", str(theirs)]) == 0
    assert not Path("called").exists() and not (theirs / "gallery.html").exists()
    assert main([*command, "--trust"]) == 0
    assert Path("called").exists() and (theirs / "gallery.html").exists()


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"model": "os:abort"}, "import and call os:abort"),
        ({"model": "os:abort (mine)"}, "import and call os:abort"),
        ({"data": "folder:/etc"}, "read folder:/etc"),
        ({"data": "arrays:x.npz"}, "read arrays:x.npz"),
        ({"model": "zoo:mnist/none"}, ""),
        ({"model": "mnist_small"}, ""),
        ({"model": "mnist_small (mine)"}, ""),
    ],
)
def test_functions_and_paths_need_trust_and_what_is_this_machines_own_needs_none(
    about: dict[str, str], named: str
) -> None:
    row, _ = a_row([1, 0], **about)
    assert foreign(row) == ([named] if named else [])


def test_a_report_looks_up_no_attack_that_a_row_names(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, seen = plugins._load, []

    def watched(group: plugins.Group, *given: Any) -> Any:
        seen.append(group)
        return load(group, *given)

    monkeypatch.setattr(plugins, "_load", watched)
    assert main(["report", str(theirs)]) == 0
    assert plugins.ATTACKS not in seen
