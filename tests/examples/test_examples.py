"""examples/: the small repository notices a worse and a masked model, and the notebooks run."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from robustbench_local import load_model
from robustbench_local.data.load import open_data
from robustbench_local.regression.settings import Check, check_of
from robustbench_local.storage.checkpoints import weights_digest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DIGITS = EXAMPLES / "digits"
NOTEBOOKS = EXAMPLES / "notebook"
LOCK = "robustness.lock.json"
COMMAND = "from robustbench_local.cli.main import main; raise SystemExit(main())"  # robustbench-local
MADE = shutil.ignore_patterns("__pycache__", ".pytest_cache")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIGITS, tmp_path / "digits", ignore=MADE))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the user of that folder would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def deploy(folder: Path, version: str) -> None:
    shutil.copy(folder / "models" / version, folder / "models/current.pt2")


def locked(folder: Path) -> dict[str, Any]:
    checks: dict[str, Any] = json.loads((folder / LOCK).read_text(encoding="utf-8"))["checks"]
    return checks


class Recorder:
    """In place of the fixture `robustness`: what is asked, unmeasured."""

    def __init__(self) -> None:
        self.asked: list[Check] = []

    def check(self, model: str, data: str, threat: str | None = None, **settings: Any) -> None:
        self.asked.append(check_of({"model": model, "data": data, "threat": threat, **settings}))


def asked_by_tests(folder: Path) -> list[Check]:
    spec = importlib.util.spec_from_file_location("tests_of_digits", folder / "tests/test_robustness.py")
    assert spec is not None and spec.loader is not None
    module, recorder = importlib.util.module_from_spec(spec), Recorder()
    spec.loader.exec_module(module)
    for test in (value for name, value in vars(module).items() if name.startswith("test_")):
        test(recorder)
    return recorder.asked


def asked_by_yaml(folder: Path) -> list[Check]:
    said = yaml.safe_load((folder / "robustness.yaml").read_text(encoding="utf-8"))
    assert said["lock"] == LOCK
    return [check_of({**said["common"], **each}) for each in said["checks"]]


@pytest.mark.slow
def test_the_tests_of_the_example_catch_a_worse_model(digits: Path) -> None:
    deploy(digits, "worse.pt2")
    kept = ("--robustness-report", "report", "--robustness-sarif", "found.sarif")
    done = python(digits, "-m", "pytest", "-k", "last_one", *kept)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is less robust than it has to be\n  significantly less robust than the last model" in done.stdout
    (result,) = json.loads((digits / "found.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]
    assert result["ruleId"] == "robustness-worse"
    assert "models/current.pt2" in (digits / "report/robustness.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tests_of_the_example_pass_as_they_are(digits: Path) -> None:
    done = python(digits, "-m", "pytest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout and done.stdout.count("\nholds: ") == 3


@pytest.mark.slow
def test_the_tests_of_the_example_refuse_a_masked_model(digits: Path) -> None:
    deploy(digits, "masked.pt2")
    done = python(digits, "-m", "pytest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot be judged, and so does not pass\n  the audit calls the model broken: gradients" in done.stdout
    assert done.stdout.count("\ncannot judge: ") == 2 and done.stdout.count("\nholds: ") == 1  # noise is no attack


@pytest.mark.slow
def test_the_command_line_judges_as_the_tests_do(digits: Path) -> None:
    deploy(digits, "worse.pt2")
    done = python(digits, "-c", COMMAND, "check", "robustness.yaml", "--json", "found.json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((digits / "found.json").read_text(encoding="utf-8"))["outcomes"]
    assert [each["verdict"] for each in found] == ["worse", "worse", "holds"]


@pytest.mark.slow
def test_the_lock_says_what_is_measured_now(digits: Path) -> None:
    before = locked(digits)
    done = python(digits, "-m", "pytest", "--robustness-update")
    assert done.returncode == 0, done.stdout + done.stderr
    after = locked(digits)
    assert after.keys() == before.keys()
    for name, entry in before.items():
        for part in ("data", "suite", "replays", "tests"):
            assert after[name][part] == entry[part], (name, part)
        for of, accuracy in entry["last"]["accuracy"].items():  # another machine may differ by an image or two
            assert after[name]["last"]["accuracy"][of] == pytest.approx(accuracy, abs=0.01), (name, of)


def test_the_lock_is_of_the_current_model_and_of_these_images() -> None:
    asked = {check.key: check for check in asked_by_tests(DIGITS)}
    entries = locked(DIGITS)
    assert entries.keys() == asked.keys()
    current, worse = (weights_digest(load_model(str(DIGITS / f"models/{name}.pt2"))) for name in ("current", "worse"))
    for name, entry in entries.items():
        check = asked[name]
        images = open_data(check.data, source=check.source, n=check.n, sample=check.sample, seed=check.seed)
        assert entry["data"]["digest"] == images.digest[:16]
        assert entry["last"]["weights"] == current[:16] != worse[:16]


def test_robustness_yaml_asks_what_the_tests_ask(digits: Path) -> None:
    assert asked_by_yaml(digits) == asked_by_tests(digits)
    file = digits / "robustness.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("at_least: 0.5", "at_least: 0.4"), encoding="utf-8")
    assert asked_by_yaml(digits) != asked_by_tests(digits)


def test_the_workflow_calls_what_is_there(digits: Path) -> None:
    workflow = yaml.safe_load((digits / ".github/workflows/robustness.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["robustness"]["steps"]
    install, test = (shlex.split(step["run"]) for step in steps if "run" in step)
    assert install[:5] == ["python", "-m", "pip", "install", "-r"] and (digits / install[5]).is_file()
    assert test[:3] == ["python", "-m", "pytest"]
    kept = steps[-1]["with"]["path"].split()
    assert set(kept) <= set(test)
    assert steps[-1]["if"] == "always()"
    done = python(digits, *test[1:], "--collect-only", "-q")
    assert done.returncode == 0 and "3 tests collected" in done.stdout, done.stdout + done.stderr
    assert python(digits, *test[1:-2], "--robustness-sariff", "x", "--collect-only").returncode != 0  # the twin


@pytest.mark.slow
def test_training_writes_a_model_that_knows_digits(digits: Path) -> None:
    done = python(digits, "train.py", "--epochs", "4", "--eps", "0.05", "--to", "models/new.pt2")
    assert done.returncode == 0, done.stderr
    images = open_data("mnist", source="bundled", n=200)
    right = load_model(str(digits / "models/new.pt2"))(images[:]).argmax(1) == images.labels
    assert right.float().mean() > 0.5
    assert sources(digits / "models/new.pt2") == []


def sources(program: Path) -> list[str]:
    """The parts of an exported program that name files of code, of whoever exported it."""
    with zipfile.ZipFile(program) as parts:
        return [name for name in parts.namelist() if b".py" in parts.read(name)]


def test_the_models_name_no_files_of_who_exported_them(tmp_path: Path) -> None:
    assert {path.name: sources(path) for path in (DIGITS / "models").iterdir() if sources(path)} == {}
    plain = tmp_path / "plain.pt2"  # the twin: what torch saves by itself
    net = load_model("zoo:mnist/none")
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 28, 28),)), plain)
    assert sources(plain)


def test_all_of_it_is_small() -> None:
    sizes = {path: path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert sum(sizes.values()) < 1_000_000
    assert {path.name: size for path, size in sizes.items() if path.suffix == ".pt2" and size > 200_000} == {}
    assert len([path for path in sizes if path.suffix == ".pt2"]) == 3


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a notebook prints as a script, line by line."""
    runpy.run_path(str(NOTEBOOKS / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_the_notebook_on_a_first_evaluation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("first_evaluation.py", capsys)
    assert lines[0].startswith("plain: 100.0% without") and lines[1].startswith("hardened: 100.0% without")
    shares = [float(line.partition(": ")[2].partition("%")[0]) for line in lines[-3:]]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]


def test_the_notebook_on_an_attack_of_ones_own_runs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("own_attack.py", capsys)
    assert lines[0] == "Corners keeps the rules"
    assert {line.split(":")[0] for line in lines if line.startswith("- ")} >= {"- company", "- seed", "- cost"}
    assert lines[-1].startswith("pgd: 0.0% robust")


@pytest.mark.slow
def test_the_notebook_on_doubting_and_guarding_runs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("robustness.py", capsys)
    assert {"broken", "worse"} <= set(lines) and any(line.startswith("sound") for line in lines)
    assert any(line.startswith("holds") for line in lines)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.iterdir()), ids=lambda path: path.name)
def test_a_notebook_is_in_the_percent_format(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:\n") and "format_name: percent" in text
    cells = [cell.partition("\n")[0] for cell in text.split("\n# %%")[1:]]
    assert set(cells) <= {"", " [markdown]"} and cells[0] == " [markdown]" and 5 < len(cells) < 20
    assert f'printed("{path.name}", capsys)' in Path(__file__).read_text(encoding="utf-8")
