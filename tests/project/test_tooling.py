"""What is run beside the tests: extras that code uses, hooks and workflows that call what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED_BY = {"packaging": "adversarial-robustness-toolbox"}  # which does not say so
PYTHON_CLASSIFIER = "Programming Language :: Python :: "


def unused(extras: dict[str, list[str]]) -> list[str]:
    """What users' extras install and no source of the package names."""
    places = [ROOT / "robustbench_local", ROOT / "attacks", ROOT / "defenses"]
    text = "\n".join(path.read_text(encoding="utf-8") for place in places for path in place.rglob("*.py"))
    asked = [Requirement(each).name for extra, needs in extras.items() if extra != "dev" for each in needs]
    return [name for name in asked if not re.search(rf"\b{re.escape(NEEDED_BY.get(name, name))}\b", text)]


def test_extras_install_nothing_that_no_code_uses() -> None:
    extras = PROJECT["optional-dependencies"]
    assert unused(extras) == []
    assert unused(extras | {"cloud": ["skypilot>=0.14"]}) == ["skypilot"]


def test_hooks_run_what_make_check_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repo,) = config["repos"]
    assert repo["repo"] == "local"  # nothing is fetched
    checked = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck:")[2].partition("\n\n")[0]
    for hook in repo["hooks"]:
        command = hook["entry"].replace(".venv/bin/python", "$(PY)")
        assert command.replace("--check", "").strip() in checked.replace("--check", ""), hook["id"]
    assert {hook["id"] for hook in repo["hooks"]} >= {"ruff", "ruff-format", "mypy"}


def test_workflows_call_ci_on_the_oldest_and_the_newest_python() -> None:
    (workflow,) = (ROOT / ".github/workflows").glob("*.yml")
    job = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["checks"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    said = [each.removeprefix(PYTHON_CLASSIFIER) for each in PROJECT["classifiers"] if PYTHON_CLASSIFIER in each]
    assert job["strategy"]["matrix"]["python"] == [said[0], said[-1]]
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in said)


def test_links_that_a_copy_lacks_are_made_again(tmp_path: Path) -> None:
    """Archives and file systems without symbolic links leave nothing, or a text file, in their place."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("attacks", "defenses", "robustbench_local", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "attacks" / "fgsm.py").write_text("")
    (tmp_path / "robustbench_local" / "defenses").write_text("../defenses")
    for _ in range(2):
        subprocess.run(["make", "links"], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "robustbench_local" / "attacks" / "fgsm.py").exists()
        assert (tmp_path / "robustbench_local" / "defenses").is_dir()
