"""README.md and the first pages of the documentation: their code runs, their grids are grids."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.cli.main import main
from robustbench_local.regression import checks_file
from robustbench_local.regression.settings import check_of
from robustbench_local.report.text import FLAGS, flag_name

ROOT = Path(__file__).parents[2]
MOST = 900  # words
ADDRESS = re.compile(r"\]\([^)]*\)")  # where a link leads, which nobody reads
QUICK = {"n=100": "n=8", "steps=40": "steps=2", 'threat="linf:8/255")': 'threat="linf:8/255", steps=2)'}


def block(page: str, language: str) -> str:
    """The first code block of a page in that language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found[0]


def run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """What the code leaves, on fewer images in fewer steps."""
    for long, short in QUICK.items():
        code = code.replace(long, short)
    exec(code, names)
    return names


def words(text: str) -> int:
    """How many a reader meets, code and tables included: runs of signs with a letter or a digit among them."""
    return len([word for word in ADDRESS.sub("]", text).split() if re.search(r"\w", word)])


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 500 < words(text) <= MOST
    assert words(text + " word" * MOST) > MOST  # the twin
    assert words("a [b c](d e f) | - `g=h`") == 4


def test_the_way_from_a_clone_to_the_first_number_takes_three_commands() -> None:
    """By README's text alone; the last one is run by test_code_blocks.py, and on images by the tests of evaluate."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (way,) = [each for each in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) if "git clone" in each]
    clone, install, evaluate = way.splitlines()
    assert clone.startswith("git clone ") and clone.endswith(" robustbench_local")
    assert install == "make -C robustbench_local install"
    assert evaluate.startswith("robustbench_local/.venv/bin/robustbench-local evaluate my_models.py:net ")


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_lines_of_python_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(block(page, "python"), {})
    assert names["x"].shape == (8, 3, 32, 32)
    assert names["verdict"].robust.shape == (8,)
    assert 0 <= names["verdict"].robust_accuracy <= names["verdict"].clean_accuracy <= 1
    assert capsys.readouterr().out.startswith(f"{names['verdict'].clean_accuracy} {names['verdict'].robust_accuracy}")


def test_a_verdict_has_what_its_page_reads() -> None:
    names = run(block("README.md", "python"), {})
    run(block("docs/verdict.md", "python"), names)
    with pytest.raises(AttributeError):  # the twin
        run(block("docs/verdict.md", "python").replace("verdict.flags", "verdict.flag"), names)


def test_the_page_on_verdicts_explains_every_flag() -> None:
    table = (ROOT / "docs/verdict.md").read_text(encoding="utf-8").partition("| flag | meaning |")[2]
    cells = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
    explained = [flag_name(flag) for cell in cells for flag in re.findall(r"`(.+?)`", cell)]
    assert sorted(explained) == sorted(FLAGS)


@pytest.mark.parametrize("page", ["README.md", "docs/first-grid.md"])
def test_the_grid_example_is_a_grid(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["n=4", "source=bundled", "dry_run=true", f"results={tmp_path}"]
    grid = block(page, "yaml")
    (tmp_path / "mine.yaml").write_text(grid, encoding="utf-8")
    assert main(["run", f"grid={tmp_path / 'mine.yaml'}", *options]) == 0
    assert "of 4 cells to do" in capsys.readouterr().out

    (tmp_path / "typo.yaml").write_text(grid.replace("attacks:", "atacks:"), encoding="utf-8")
    assert main(["run", f"grid={tmp_path / 'typo.yaml'}", *options]) == 2


def test_the_checks_of_the_page_on_regression_are_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/regression.md").read_text(encoding="utf-8")
    (tmp_path / "robustness.yaml").write_text(block("docs/regression.md", "yaml"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = checks_file.read(Path("robustness.yaml"))
    assert [check_of({**found.common, **each}).suite for each in found.checks] == ["ci", "noise"]
    (code,) = re.findall(r"```python\n(import.*?)```", page, re.DOTALL)
    assert run(code, {})["outcome"].verdict == "holds"


def test_the_picture_shows_what_its_words_say() -> None:
    """Its command, followed up to the drawing."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words, name = re.findall(r"^!\[(.*?)\]\((.*?)\)$", text, re.MULTILINE)[0]
    image, twin, (before, after) = runpy.run_path(str(ROOT / ".ci/adversarial.py"))["chosen"]()
    assert before.startswith("cat, ") and after.startswith("frog, ")
    assert words.startswith("A cat ") and words.endswith(" a frog") and "8 of 256 grey levels" in words
    assert 0 < (twin - image).abs().max() <= 8 / 255 + 1e-6
    assert 5_000 < (ROOT / name).stat().st_size < 60_000
