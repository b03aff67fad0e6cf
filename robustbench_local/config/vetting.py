"""What a YAML file may hold before anything is made of it: a stranger's may be a bomb, or reach outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import ConfigError, did_you_mean

_LARGEST = 1 << 15  # bytes of a file: what PyYAML reads in a second
_MOST, _DEEPEST = 10_000, 30  # values, and levels of them within each other, once all aliases are followed
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def vetted(path: Path, folders: Iterable[Path]) -> list[str]:
    """The text of a YAML file whose root is a mapping, and of all that it extends, beside it or in `folders`: in the
    order in which each replaces what those before it say.

    ConfigError where it is no such, too large, nested too deeply or in itself, looks something up ("${...}"), sets up
    Hydra, or extends what is neither beside it nor in those folders, itself, or one file twice.
    """
    return _vetted(path, folders, (), set())


def _vetted(path: Path, folders: Iterable[Path], above: tuple[Path, ...], seen: set[Path]) -> list[str]:
    """above: who extends this file. seen: all files so far, of which none may come again."""
    import yaml

    if path in above:
        raise ConfigError(f"it extends itself, by way of {path.name}")
    if path in seen:
        raise ConfigError(f"it extends {path.name} twice")
    seen.add(path)
    text = _text(path)
    if _brackets(text) > _DEEPEST:
        raise ConfigError(f"it nests more than {_DEEPEST} levels of brackets")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return [text]
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"it holds a {root.id}: write key: value, a line each, as in data: mnist")
    check_plain(root)
    if any(key.value == "hydra" for key, _ in root.value):
        raise ConfigError("it sets up Hydra, which does not run here: leave the key hydra out")
    names = [name for key, value in root.value if key.value == "defaults" for name in _extended(value)]
    texts = []
    for name in names if "_self_" in names else [*names, "_self_"]:
        own = name == "_self_"
        texts += [text] if own else _vetted(_beside(path, name, folders), folders, (path, *above), seen)
    return texts


def check_plain(value: Any) -> None:
    """ConfigError where a tree of YAML nodes or of Python's values is too large or deep, or holds itself or "${"."""
    _measure(value, {})


def _measure(value: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """(values, levels) of a tree in which a part may occur many times: each is measured once."""
    text, parts = _parts(value)
    if text is not None and "${" in text:
        raise ConfigError(f"{text[:60]!r} looks something up: write the value itself")
    if not parts:
        return 1, 1
    if id(value) not in known:
        known[id(value)] = None  # it is being measured
        measures = [_measure(part, known) for part in parts]
        known[id(value)] = 1 + sum(size for size, _ in measures), 1 + max(depth for _, depth in measures)
    found = known[id(value)]
    if found is None or found[0] > _MOST or found[1] > _DEEPEST:
        what = "holds itself" if found is None else f"holds {found[0]} values, {found[1]} levels deep"
        raise ConfigError(f"it {what}: allowed are {_MOST} values, {_DEEPEST} levels deep")
    return found


def _parts(value: Any) -> tuple[str | None, list[Any]]:
    """The text of a leaf, the parts of anything else; of nodes of YAML or of Python's values."""
    from yaml import MappingNode, ScalarNode, SequenceNode

    match value:
        case str():
            return value, []
        case ScalarNode():
            return value.value, []
        case MappingNode():
            return None, [part for pair in value.value for part in pair]
        case SequenceNode():
            return None, value.value
        case Mapping():
            return None, [part for pair in value.items() for part in pair]
        case list() | tuple():
            return None, list(value)
    return None, []


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError("it is no file")
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ConfigError(f"it is larger than {_LARGEST} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"it is no UTF-8 text: {error}") from None


def _brackets(text: str) -> int:
    """How deeply brackets nest, at most; those in quotes are counted as well."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _extended(node: Any) -> list[str]:
    """The names under `defaults`: the files that come before, or after, the file's own values, _self_."""
    from yaml import ScalarNode

    names = []
    for item in node.value if isinstance(node.value, list) else [node]:
        if not isinstance(item, ScalarNode) or not _NAME.fullmatch(item.value):
            raise ConfigError("its defaults are no list of names of grids: write [cifar10_pgd, _self_]")
        names.append(str(item.value))
    return names


def _beside(path: Path, name: str, folders: Iterable[Path]) -> Path:
    every = [path.parent, *folders]
    for folder in every:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in every for file in folder.glob("*.yaml")})
    raise ConfigError(f'it extends "{name}", which is neither beside it nor packaged{did_you_mean(name, known)}')
