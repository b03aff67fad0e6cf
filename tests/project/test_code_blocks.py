"""Every code block of README and docs runs: Python as it stands, commands short, grids as plans."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.code_blocks import BLOCK, Block, blocks, furnish, pages, run_page

# followed to the letter, installation included, by test_first_plugins.py
FOLLOWED = {"docs/first-attack.md", "docs/first-defense.md"}
# ten seconds each, or more
SLOW = {f"docs/{name}.md" for name in ("audit", "data", "examples", "own-model", "plugins", "regression")}
NOT_RUN = 5  # blocks that state a reason: raise it only for what no test can run


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    furnish(folder)
    return folder


def marked(page: str) -> object:
    return pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page


@pytest.mark.parametrize("page", [marked(page) for page in pages() if page not in FOLLOWED and blocks(page)])
def test_the_code_of_a_page_runs(
    page: str, furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(furnished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    seen = blocks(page)
    run_page(page, seen)
    assert seen


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [block for page in pages() for block in blocks(page) if block.why is not None]
    assert len(left_out) == NOT_RUN, [f"{block}: {block.why}" for block in left_out]
    assert all(len((block.why or "").split()) > 2 for block in left_out)


def test_every_fence_is_seen() -> None:
    """A block in a language that is not known here, or indented, would be run by nobody."""
    for page in pages():
        text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
        fences = [line for line in text.splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(BLOCK.findall(text)), page
        assert not re.search(r"\n\n    \S", BLOCK.sub("", text)), f"{page}: an indented block"
        assert {block.language for block in blocks(page)} <= {"python", "sh", "yaml", "toml"}, page


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "import robustbench_local as rbl\nrbl.evaluat"),
        ("python", 'def test_it(robustness):\n    robustness.check("m.pt2", data="mnist", treat="linf:0.1")'),
        ("sh", "robustbench-local lst attacks"),
        ("sh", "robustbench-local run grid=quickstart atacks=pgd"),
        ("sh", "make nothing"),
        ("sh", "pip install 'robustbench_local[rey]'"),
        ("sh", "pytest --robustness-updat"),
        ("sh", "rm -rf results"),
        ("yaml", "models: [preact_smal]"),
        ("yaml", "checks: [{modle: x}]"),
        ("yaml", "shap: [3, 4, 4]"),
        ("toml", "a = "),
    ],
)
def test_a_block_that_is_wrong_is_noticed(
    language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Exception, SystemExit)):
        run_page("page.md", [Block("page.md", 1, language, text, None)])
