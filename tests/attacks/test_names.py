"""The attacks as names of the room, which scripts and type checkers know."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import robustbench_local as rbl

SOURCE = Path(__file__).parents[2] / "robustbench_local" / "attacks" / "__init__.py"


def declared(source: str) -> set[str]:
    """ "module:class" of all that the room imports for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustbench_local.attacks"):
            (alias,) = node.names
            assert alias.asname == alias.name, "a name is handed on only where it is written twice"
            found.add(f"{node.module}:{alias.name}")
    return found


def registered() -> set[str]:
    points = entry_points(group="robustbench_local.attacks")
    return {point.value for point in points if point.value.startswith("robustbench_local.attacks.")}


def test_every_attack_is_a_name_of_the_room() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    assert declared(source) == registered()
    missing = source.replace("    from robustbench_local.attacks.pgd import PGD as PGD\n", "")
    assert registered() - declared(missing) == {"robustbench_local.attacks.pgd:PGD"}


def test_each_is_there_when_asked_for() -> None:
    for value in registered():
        name = value.partition(":")[2]
        assert getattr(rbl.attacks, name).__name__ == name and name in dir(rbl.attacks)
    with pytest.raises(AttributeError, match="PDG"):
        rbl.attacks.PDG  # noqa: B018


def test_to_name_one_attack_loads_no_other() -> None:
    code = (
        "import sys, robustbench_local as rbl; rbl.attacks; print(*sys.modules); rbl.attacks.PGD; print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, then = ({name for name in line.split()} for line in said.splitlines())
    assert "torch" not in first and "robustbench_local.attacks.pgd" in then
    assert "robustbench_local.attacks.square" not in then
