"""A report is a pure function of rows: it loads nothing that attacks or trains, and looks up no plug-in."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from tests.helpers.rows import a_row, stored

ROOT = Path(__file__).parents[2]
OURS = ("evaluation", "training", "models", "data", "grids", "attacks", "defenses", "config", "audit.escalation")
HEAVY = ("scipy", "matplotlib", "pandas", "jinja2", "PIL", "hydra")
UNWANTED = (*(f"robustbench_local.{room}" for room in OURS), *HEAVY)
REPORT = (
    "import robustbench_local.report.write, robustbench_local.report.corruption_text,"
    " robustbench_local.report.assessment_page"
)


def loaded(code: str) -> set[str]:
    """What of the unwanted a fresh process has loaded after this code, or parts of it."""
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    script = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=known, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    return {each for each in UNWANTED if any(name == each or name.startswith(f"{each}.") for name in names)}


def test_nothing_is_loaded_that_runs_attacks_or_takes_long() -> None:
    assert not loaded(REPORT)


def test_what_is_loaded_is_seen() -> None:
    more = "import robustbench_local.config.plugins, scipy.stats"
    assert loaded(f"{REPORT}; {more}") == {"robustbench_local.config", "scipy"}


def test_a_page_is_the_same_whatever_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [a_row([1, 1, 0, 0], defense=name, families=[family]) for name, family in (("jpeg", "a kind"), ("own", ""))]
    store = stored(tmp_path, *made)
    results = Results.of(store.rows(), store)
    write_report(results, tmp_path / "here", "title")

    def nothing(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a report looked up what is installed")

    monkeypatch.setattr(importlib.metadata, "entry_points", nothing)
    write_report(results, tmp_path / "there", "title")
    pages = [(tmp_path / place / "index.html").read_bytes() for place in ("here", "there")]
    assert pages[0] == pages[1] and b"a kind" in pages[0] and b"other" in pages[0]
