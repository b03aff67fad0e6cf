"""`evaluate MODEL --data DATA`, and `run` without grid=: from nothing to a model's number."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import robustbench_local as rbl
from robustbench_local.cli.main import main
from robustbench_local.core.downloads import downloads
from robustbench_local.core.errors import DataError
from robustbench_local.data import cache
from robustbench_local.storage.cache_folder import CACHE_VARIABLE

MODELS = """
import robustbench_local as rbl

def net():
    return rbl.load_model("zoo:mnist/none")
"""
ANSWER = re.compile(
    r"clean (\d+\.\d) %   robust at most (\d+\.\d) % \((\d+\.\d)-(\d+(?:\.\d)?)\)   certified -   report: (\S+)"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a model in it, an empty cache, and no network."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # the answer is one line where a terminal has room for it
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(cache.SOURCE_VARIABLE, raising=False)
    monkeypatch.setattr(cache, "DOWNLOADS", {"npm": refused})
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return tmp_path


def refused(*_: object) -> None:
    raise AssertionError("asked for a download")


def commands(text: str) -> int:
    """The exit code of the last of these lines, as a user types them after installing the package."""
    code = 0
    for line in text.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "robustbench-local"
        code = main(arguments)
    return code


def test_one_command_gives_the_number_of_an_own_model(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    asked = "robustbench-local evaluate my_models.py:net --data mnist --threat linf:0.1 --suite quick --n 30"
    assert len(asked.splitlines()) <= 3 and commands(asked) == 0
    said = capsys.readouterr().out.splitlines()
    found = ANSWER.fullmatch(said[-1])
    assert found is not None, said
    x, y = rbl.load_data("mnist", 30, source="bundled")
    worst = rbl.benchmark(rbl.load_model("zoo:mnist/none"), "mnist", "linf:0.1", suite="quick", n=30, progress=False)
    assert float(found[1]) == pytest.approx(100 * worst.clean_accuracy, abs=0.05) and len(x) == len(y) == 30
    rate = worst.worst("linf:0.1")
    wanted = [100 * value for value in (rate.value, rate.low, rate.high)]
    assert [float(found[place]) for place in (2, 3, 4)] == pytest.approx(wanted, abs=0.051)
    assert found[5] == "results/net/index.html" and (folder / found[5]).is_file()
    assert list((folder / "results/net").glob("audits/*")) or "audit" in (folder / "results/net/index.html").read_text()


def test_the_same_command_resumes_and_measures_nothing_again(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    asked = "robustbench-local evaluate my_models.py:net --data mnist --threat linf:0.1 --suite quick --n 10"
    commands(asked)
    first = capsys.readouterr().out.splitlines()[-1]
    rows = {path: path.stat().st_mtime_ns for path in folder.glob("results/net/rows/*")}
    assert commands(asked) == 0 and len(rows) >= 2
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == first and "done before" in said.err
    assert {path: path.stat().st_mtime_ns for path in folder.glob("results/net/rows/*")} == rows


def test_several_threats_are_in_one_line(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    asked = (
        "robustbench-local evaluate zoo:mnist/none --data mnist --threat linf:0.1 --threat l2:1 --suite quick --n 8"
        " --out there/mine seeds=1"
    )
    assert commands(asked) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "within linf:0.1" in last and "within l2:1" in last and last.endswith("there/mine/index.html")
    rows = [json.loads(path.read_text()) for path in folder.glob("there/mine/rows/*.json")]
    assert len(rows) == 4 and {row["definition"]["seed"] for row in rows} == {1}


def test_a_cell_that_failed_ends_with_1_and_is_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "my_models.py").write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 4)\n")
    assert commands("robustbench-local evaluate my_models.py:net --data mnist --suite quick --n 8") == 1
    said = capsys.readouterr()
    assert "cells failed" in said.err and "clean -   robust -   certified -" in said.out


def test_a_dry_run_fetches_and_writes_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    asked = "robustbench-local evaluate my_models.py:net --data mnist"
    assert commands(f"{asked} dry_run=true") == 0
    assert "5 of 5 cells to do" in capsys.readouterr().out and not (folder / "results").exists()
    assert commands(f"{asked} --n 2000 dry_run=true") == 2
    said = capsys.readouterr().err
    assert "robustbench-local data fetch mnist" in said and "a dry run downloads nothing" in said
    assert commands(f"{asked} --n 2000") == 2  # which does ask
    assert "asked for a download" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("evaluate my_models.py:net", "data=cifar10"),
        ("evaluate my_models.py:net fgsm --data mnist", "fgsm: evaluate takes one model"),
        ("evaluate my_models.py:net --data mnist models=net.onnx", "net.onnx: evaluate takes one model"),
        ("evaluate my_models.py:nte --data mnist", "my_models.py"),
        ("evaluate my_models.py:net --data mnits", 'did you mean "mnist"'),
        ("evaluate my_models.py:net --data mnist --threat linf:8", "8/255"),
        ("evaluate my_models.py:net --data mnist --n 0", "n=0"),
        ("evaluate my_models.py:net --data mnist atacks=fgsm", 'did you mean "attacks"'),
        ("evaluate resnet50 --data mnist", "torchvision:NAME"),
        ("evaluate my_models.py:net --data cache", "did you mean folder:cache?"),
        ("evaluate my_models.py:net --data mine.npz", "did you mean arrays:mine.npz?"),
        ("evaluate my_models.py:net --data mnist --threat 8/255", "did you mean linf:8/255?"),
        ("run", "robustbench-local run quickstart"),
        ("run data=mnist", "which model? Say models="),
        ("run models=my_models.py:net", "which images? Say data="),
        ("run quikstart", 'did you mean "quickstart"'),
        ("run nowhere.yaml", "there is no grid file"),
        ("run quickstart n 5", "quickstart, n, 5: one grid at a time"),
        ("run quickstart grid=mnist_pgd", "one grid at a time"),
        ("run data=mnist models=my_models.py:net suite=quikc", 'did you mean "quick"'),
        ("train", "which zoo? Give zoo=NAME"),
    ],
)
def test_mistakes_say_what_to_type_next(
    asked: str, words: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert commands(f"robustbench-local {asked}") == 2
    said = capsys.readouterr()
    assert words in said.err and "Traceback" not in said.err and not (folder / "results").exists()


def test_run_takes_a_grid_by_name_or_path_as_its_first_word(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "lb.yaml").write_text(
        "data: mnist\nn: 6\nmodels: zoo:mnist/none\nattacks: fgsm\nthreats: linf:0.1\n", encoding="utf-8"
    )
    assert commands("robustbench-local run lb.yaml device=cpu") == 0
    assert (folder / "results/lb/index.html").is_file()
    narrowed = "data=mnist models=zoo:mnist/none defenses=none attacks=fgsm threats=linf:0.1 n=6"
    assert commands(f"robustbench-local run quickstart {narrowed}") == 0
    one, other = (list(folder.glob(f"results/{name}/rows/*.json")) for name in ("lb", "quickstart"))
    assert [path.name for path in one] == [path.name for path in other]
    capsys.readouterr()


def test_a_grid_of_two_data_sets_is_narrowed_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands("robustbench-local run quickstart data=mnist n=10 dry_run=true") == 0
    said = capsys.readouterr().out
    assert "mnist_small" in said and "preact_small" not in said
    assert commands("robustbench-local run quickstart data=cifra10 n=10 dry_run=true") == 2
    assert 'did you mean "cifar10"' in capsys.readouterr().err


def test_run_without_a_grid_is_a_suite(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "photos/a").mkdir(parents=True)
    (folder / "photos/b").mkdir()
    for place in range(4):
        Image.new("L", (28, 28), 60 * place).save(folder / "photos" / "ab"[place % 2] / f"{place}.png")
    asked = "robustbench-local run data=folder:photos models=my_models.py:net allow_chance=true device=cpu"
    assert commands(f"{asked} suite=quick") == 0
    rows = [json.loads(path.read_text()) for path in folder.glob("results/net/rows/*.json")]
    assert {row["definition"]["attack"] for row in rows} == {"fgsm", "pgd"}
    assert {row["definition"]["threat"] for row in rows} == {"linf:4/255"}
    assert {row["definition"]["ids"] for row in rows} == {"0:4"}  # the suite would take a hundred
    capsys.readouterr()


def test_the_same_as_a_call(folder: Path) -> None:
    rows = rbl.run_grid(data="mnist", models="my_models.py:net", suite="quick", n=4, dry_run=True)
    assert [row["status"] for row in rows] == ["to do", "to do"]


def test_bundled_images_are_those_of_the_whole_set(folder: Path) -> None:
    images = rbl.load_data("mnist", ids="10:20")
    bundled = rbl.load_data("mnist", ids="10:20", source="bundled")
    assert all((one == other).all() for one, other in zip(images, bundled, strict=True))
    choices: tuple[dict[str, Any], ...] = ({"n": 1001}, {"n": 5, "sample": "stratified"}, {"ids": [3, 1000]}, {})
    for choice in choices:
        with pytest.raises(DataError, match="asked for a download"):
            rbl.load_data("mnist", **choice)
        with downloads(False), pytest.raises(DataError, match="robustbench-local data fetch mnist"):
            rbl.load_data("mnist", **choice)
