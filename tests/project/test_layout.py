"""tests/ itself: what tests share lies in helpers/, and no test says nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
SAYS = {"raises", "warns", "fail", "deprecated_call"}  # of pytest


def sources() -> dict[str, str]:
    """{module: source} of all that lies in tests/."""
    return {
        ".".join(file.relative_to(TESTS.parent).with_suffix("").parts): file.read_text(encoding="utf-8")
        for file in sorted(TESTS.rglob("*.py"))
    }


def imports_of_tests(texts: dict[str, str]) -> list[str]:
    """Imports of one test file by another."""
    found = []
    for module, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                base = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                names = [f"{base}.{alias.name}" for alias in node.names]
                found += [f"{module}: {name}" for name in names if ".test_" in f".{name}"]
    return found


def silent(texts: dict[str, str]) -> list[str]:
    """Tests that assert nothing, by themselves or by what they call of tests/."""
    functions = {
        (module, node.name): node
        for module, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    asserting = {place for place, node in functions.items() if _asserts(node)}
    while True:
        names = {name for _, name in asserting}
        more = {place for place, node in functions.items() if names & {*_called(node)}} - asserting
        if not more:
            return [f"{module}: {name}" for module, name in functions.keys() - asserting if name.startswith("test_")]
        asserting |= more


def _asserts(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Assert) for each in ast.walk(node)) or any(
        name in SAYS or name.startswith("assert") for name in _called(node)
    )


def _called(node: ast.AST) -> Iterator[str]:
    """Names of what is called, a method's without what it is of."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call):
            if isinstance(each.func, ast.Name):
                yield each.func.id
            elif isinstance(each.func, ast.Attribute):
                yield each.func.attr


def test_no_test_file_imports_another() -> None:
    assert imports_of_tests(sources()) == []


def test_every_test_asserts_something() -> None:
    assert sorted(silent(sources())) == []


def test_what_is_wrong_is_found() -> None:
    shared = "def same(a, b):\n    assert a == b\n\ndef test_a():\n    same(1, 1)\n"
    asleep = "from tests.room.test_shared import same\n\ndef test_b():\n    print(1)\n"
    texts = {"tests.room.test_shared": shared, "tests.room.test_asleep": asleep}
    assert imports_of_tests(texts) == ["tests.room.test_asleep: tests.room.test_shared.same"]
    assert silent(texts) == ["tests.room.test_asleep: test_b"]
    assert len(imports_of_tests({"tests.a": "import tests.room.test_shared\nfrom tests.room import test_shared"})) == 2
