"""README.md: its code runs, its grid is one, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first code block in that language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return found[0]


def test_the_python_example_runs() -> None:
    code = block("python")
    for long, short in (("n=100", "n=8"), ("steps=40", "steps=2")):
        assert long in code
        code = code.replace(long, short)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["x"].shape == (8, 3, 32, 32)
    assert names["verdict"].robust.shape == (8,)
    assert 0 <= names["verdict"].robust_accuracy <= names["verdict"].clean_accuracy <= 1


def test_the_grid_example_is_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["n=4", "source=bundled", "dry_run=true", f"results={tmp_path}"]
    (tmp_path / "mine.yaml").write_text(block("yaml"), encoding="utf-8")
    assert main(["run", f"grid={tmp_path / 'mine.yaml'}", *options]) == 0
    assert "of 4 cells to do" in capsys.readouterr().out

    (tmp_path / "typo.yaml").write_text(block("yaml").replace("attacks:", "atacks:"), encoding="utf-8")
    assert main(["run", f"grid={tmp_path / 'typo.yaml'}", *options]) == 2


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
