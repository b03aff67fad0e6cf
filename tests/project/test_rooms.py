"""The rooms: imports run downwards through them, without circles, and the harness meets plug-ins by name only."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "robustbench_local"
ROOT = Path(__file__).parents[2]
# from the ground; a room imports itself and what comes before it
ROOMS = (
    "core",
    "ops",
    "storage",
    "config",
    "data",
    "metrics",
    "evaluation",
    "models",
    "bounds",
    "training",
    "audit",
    "attacks",
    "report",
    "gallery",
    "defenses",
    "grids",
    "regression",
    "testing",
    "cli",
)
PLUGINS = ("attacks", "defenses")
# what is imported inside a function, and why that is allowed
OPTIONAL = {
    "cli": "start-up time",
    "regression.plugin": "every pytest loads it",
    "regression.pytest_run": "every pytest loads it",
}
FACADES = ("regression", "testing")  # whose public names are asked for as robustbench_local.ROOM.NAME, and loaded then


def imports(source: str, module: str, known: set[str]) -> Iterator[tuple[str, bool]]:
    """(module of ours, whether a function imports it) of a module's source. Those for type checkers count as well."""
    for inside, node in _read(source):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in known else str(node.module)), inside
        else:
            yield from ((alias.name, inside) for alias in node.names)


@cache
def _read(source: str) -> list[tuple[bool, ast.Import | ast.ImportFrom]]:
    """Its import statements: parsed once for all checks."""
    return list(_statements(ast.parse(source), False))


def _statements(tree: ast.AST, inside: bool) -> Iterator[tuple[bool, ast.Import | ast.ImportFrom]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield inside, node
        else:
            yield from _statements(
                node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            )


def sources() -> dict[str, str]:
    """{module: source} of the package as it is installed."""
    found = {}
    for room in ROOMS:
        for file in sorted((ROOT / PACKAGE / room).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = file.read_text(encoding="utf-8")
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def graph(texts: dict[str, str]) -> dict[str, set[tuple[str, bool]]]:
    known = set(texts)
    return {
        module: {(target, inside) for target, inside in imports(text, module, known) if target in known}
        for module, text in texts.items()
    }


def upward(texts: dict[str, str]) -> list[str]:
    place = {name: number for number, name in enumerate(ROOMS)}
    return [
        f"{module} -> {target}"
        for module, targets in graph(texts).items()
        for target, _ in sorted(targets)
        if place[room(target)] > place[room(module)]
    ]


def of_plugins(texts: dict[str, str]) -> list[str]:
    """Imports of an attack or a defense by anything that is none."""
    return [
        f"{module} -> {target}"
        for module, targets in graph(texts).items()
        for target, _ in sorted(targets)
        if room(target) in PLUGINS and room(module) not in PLUGINS
    ]


def circles(texts: dict[str, str]) -> list[str]:
    """Modules that can reach themselves."""
    direct = {module: {target for target, _ in targets} - {module} for module, targets in graph(texts).items()}
    found = []
    for start in direct:
        seen: set[str] = set()
        left = list(direct[start])
        while left:
            here = left.pop()
            if here not in seen:
                seen.add(here)
                left += direct[here]
        if start in seen:
            found.append(start)
    return found


def late(texts: dict[str, str]) -> list[str]:
    """Imports inside functions."""
    return [
        f"{module} -> {target}"
        for module, targets in graph(texts).items()
        for target, inside in sorted(targets)
        if inside and not {room(module), module.removeprefix(f"{PACKAGE}.")} & OPTIONAL.keys()
    ]


CHECKS = {"upward": upward, "of plug-ins": of_plugins, "circles": circles, "late": late}


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_to_its_rooms(check: str) -> None:
    assert CHECKS[check](sources()) == []


@pytest.mark.parametrize(
    ("check", "module", "planted"),
    [
        ("upward", "core.draws", "from robustbench_local.evaluation import judge"),
        ("upward", "storage.row", "from robustbench_local.config.settings import construct"),
        ("upward", "metrics.rates", "if True:\n    import robustbench_local.report.table"),
        ("of plug-ins", "grids.run", "from robustbench_local.attacks.pgd import PGD"),
        ("circles", "core.errors", "from robustbench_local.core.threat import Norm"),
        ("late", "report.table", "def f():\n    from robustbench_local.report import svg"),
    ],
)
def test_a_planted_import_is_found(check: str, module: str, planted: str) -> None:
    texts = sources()
    texts[f"{PACKAGE}.{module}"] += "\n" + textwrap.dedent(planted) + "\n"
    assert CHECKS[check](texts)


def test_every_room_says_what_it_is_for() -> None:
    for name in ROOMS:
        text = (ROOT / PACKAGE / name / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), name
        if name not in (*PLUGINS, *FACADES):
            assert len(ast.parse(text).body) == 1, f"{name}/__init__.py holds more than its docstring"
    listed = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert listed == set(ROOMS)
