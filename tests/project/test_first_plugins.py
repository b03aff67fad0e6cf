"""The pages on a first attack and a first defense, followed to the letter: files written, installed, run in a grid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
INSTALL = "pip install "  # on a machine that may be offline, and without touching the environment under test


def read(page: str) -> tuple[dict[str, str], list[str]]:
    """The files of a page by name, and its commands."""
    text = (DOCS / page).read_text(encoding="utf-8")
    files = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    (shell,) = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return files, shell.splitlines()


def blocks(page: str) -> list[str]:
    """The code in Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    site = folder / "site"
    if command.startswith(INSTALL):
        options = f"--quiet --no-index --no-deps --no-build-isolation --target '{site}' "
        command = f"'{sys.executable}' -m {INSTALL}{options}{command.removeprefix(INSTALL)}"
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": f"{site}{os.pathsep}{DOCS.parent}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("results/*/rows/*.json")]


@pytest.mark.parametrize(
    ("page", "plugin", "kind", "attacks", "defenses"),
    [
        ("first-attack.md", "corners", "attack", {"fgsm", "corners"}, {"none"}),
        pytest.param(
            *("first-defense.md", "few_levels", "defense", {"noise", "pgd"}, {"none", "few_levels"}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_page_works_as_it_stands(
    tmp_path: Path, page: str, plugin: str, kind: str, attacks: set[str], defenses: set[str]
) -> None:
    files, (install, listing, run) = read(page)
    write(files, tmp_path)

    unknown = shell(run, tmp_path)  # the twin: without the installation the same grid must not run
    assert unknown.returncode == 2
    assert f'unknown {kind} "{plugin}"' in unknown.stderr

    installed = shell(install, tmp_path)
    assert installed.returncode == 0, installed.stderr
    assert f"\n{plugin}  " in "\n" + shell(listing, tmp_path).stdout

    (check,) = [code for code in blocks(page) if "rbl.testing.check_" in code]
    (tmp_path / "check.py").write_text(check, encoding="utf-8")
    checked = shell(f"'{sys.executable}' check.py", tmp_path)
    assert checked.returncode == 0, checked.stderr

    done = shell(run, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made = rows(tmp_path)
    assert {row["status"] for row in made} == {"ok"}
    assert len(made) == len(attacks) * len(defenses)
    assert {row["definition"]["attack"] for row in made} == attacks
    assert {row["definition"]["defense"] for row in made} == defenses
