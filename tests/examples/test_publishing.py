"""examples/publishing: the workflow's own command makes what it publishes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustbench_local.cli.main import main
from tests.helpers.rows import a_row, stored

WORKFLOW = Path(__file__).parents[2] / "examples/publishing/pages.yml"


def test_the_workflow_publishes_what_its_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    build, deploy = workflow["jobs"]["build"], workflow["jobs"]["deploy"]
    commands = [shlex.split(step["run"]) for step in build["steps"] if "run" in step]
    ((program, *words),) = (words for words in commands if words[0] == "robustbench-local")
    stored(tmp_path / "results" / "mine", a_row([1, 0, 0, 1]))
    monkeypatch.chdir(tmp_path)
    assert program == "robustbench-local" and main(words) == 0
    (published,) = (step["with"]["path"] for step in build["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert (tmp_path / published / "index.html").is_file() and (tmp_path / published / "mine/index.html").is_file()
    assert workflow["permissions"] == {"contents": "read"}, "only the last step may write, and only pages"
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"} and deploy["needs"] == "build"
