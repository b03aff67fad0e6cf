"""What the Tab key may make of the last word of a line. Names are read from files and entry points: torch is not
loaded, since somebody waits.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any, Literal

from robustbench_local.cli.audit_config import AuditConfig
from robustbench_local.config import reading
from robustbench_local.config.schema import GridConfig, MakeConfig

_KEYS: dict[str, tuple[Any, ...]] = {
    "run": (GridConfig,),
    "evaluate": (GridConfig,),
    "audit": (AuditConfig,),
    "train": (MakeConfig,),
}
_FILES = {"run": "grid", "train": "zoo"}  # the key that names a file, which stands beside those of the file
_DATA = ("mnist", "cifar10")
_NORMS = ("linf:", "l2:", "l1:", "l0:", "none")
_DEVICES = ("auto", "cpu", "cuda", "xpu", "mps")
_PIECE = re.compile(r"[^\[{,]*\Z")  # of a list or a mapping, what is being written


def candidates(line: str, parser: argparse.ArgumentParser) -> list[str]:
    """Whole words that begin as the last one of the line does, which is empty after a blank."""
    *words, last = line.split(" ")
    words = [word for word in words[1:] if word]  # without the command's own name
    command, chosen = "", parser
    for word in words:
        deeper = _commands(chosen)
        if word in deeper:
            command, chosen = command or word, deeper[word]
    start = last[:1] if last[:1] in ("'", '"') else ""
    found = _options(chosen) if last.startswith("-") else _words(command, chosen, words, last.removeprefix(start))
    return sorted({start + word for word in found if word.startswith(last.removeprefix(start))})


def attacks() -> list[str]:
    return _plugins("robustbench_local.attacks")


def defenses() -> list[str]:
    return _plugins("robustbench_local.defenses")


def grids() -> list[str]:
    return reading.names("grid")


def models() -> list[str]:
    """Checkpoints of the zoo, its recipes, and the architectures that these name."""
    folder = reading.FOLDER / "zoo"
    recipes = [path.read_text(encoding="utf-8") for path in folder.rglob("*.yaml")]
    named = re.findall(r"^architecture: *(\w+)", "\n".join(recipes), re.MULTILINE)
    return [*(f"zoo:{name}" for name in reading.names("zoo")), *named]


def _plugins(group: str) -> list[str]:
    return [point.name for point in entry_points(group=group)]


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "grid": grids,
    "zoo": lambda: reading.names("zoo"),
    "data": lambda: _DATA,
    "models": models,
    "model": models,
    "surrogates": models,
    "attacks": attacks,
    "attack": attacks,
    "defenses": defenses,
    "defense": defenses,
    "baseline": defenses,
    "threats": lambda: _NORMS,
    "threat": lambda: _NORMS,
    "device": lambda: _DEVICES,
}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
    return [text for action in shown for text in action.option_strings if text.startswith("--")]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _words(command: str, parser: argparse.ArgumentParser, words: Sequence[str], last: str) -> list[str]:
    """After an option its values; then commands, values after key=, keys, and what positions take."""
    for action in parser._actions:
        if words and words[-1] in action.option_strings and action.nargs != 0:
            return _values(action.dest, action.choices)
    key, equals, value = last.partition("=")
    if equals and command in _KEYS:
        written = _PIECE.sub("", value)
        return [f"{key}={written}{each}" for each in _values(key, _choices(command, key))]
    deeper = _commands(parser)
    if deeper:
        return list(deeper)
    found = [f"{each}=" for each in _fields(command)]
    for action in parser._actions:
        if not action.option_strings and action.choices and words[-1:] == [command]:
            found += map(str, action.choices)
    if command == "list" and len(words) > 1:
        found += _values(words[1], None)
    if command == "run" and all("=" in word or word.startswith("-") for word in words[1:]):
        found += grids()  # a grid's name may stand alone
    if command == "data":
        found += _DATA
    if command in ("audit", "evaluate") and words[-1:] == [command]:
        found += models()
    return found


def _values(key: str, choices: Iterable[Any] | None) -> list[str]:
    named = _NAMES.get(key)
    return list(map(str, choices)) if choices else list(named()) if named else []


def _fields(command: str) -> list[str]:
    named = [field.name for kind in _KEYS.get(command, ()) for field in dataclasses.fields(kind)]
    return [*named, _FILES[command]] if command in _FILES else named


def _choices(command: str, key: str) -> list[str]:
    """What the annotation of a key lists."""
    for kind in _KEYS[command]:
        hint = typing.get_type_hints(kind).get(key)
        if hint is not None:
            return _listed(hint)
    return []


def _listed(hint: Any) -> list[str]:
    if hint is bool:
        return ["true", "false"]
    if typing.get_origin(hint) is Literal:
        return [str(each) for each in typing.get_args(hint)]
    return [each for part in typing.get_args(hint) for each in _listed(part)]
