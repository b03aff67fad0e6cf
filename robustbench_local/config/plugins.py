"""Attacks and defenses by name, met through entry points: ours exactly as a stranger's package."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeVar

from robustbench_local.config.sentences import sentence
from robustbench_local.config.settings import construct, defaults, hints_of, spell
from robustbench_local.core.attack import Attack
from robustbench_local.core.containment import contained
from robustbench_local.core.defense import Defense
from robustbench_local.core.errors import ConfigError, PluginError, did_you_mean

T = TypeVar("T")
_NONE: Mapping[str, Any] = MappingProxyType({})
_HANDED_ON = ("name", "settings")  # fields of a family, which says in its summary how to name its members


@dataclass(frozen=True)
class Group:
    """The plug-ins of one kind: where they are declared and what they must be."""

    word: str
    entry_points: str
    base: type[Any]


ATTACKS = Group("attack", "robustbench_local.attacks", Attack)
DEFENSES = Group("defense", "robustbench_local.defenses", Defense)


@dataclass(frozen=True)
class Setting:
    """What `list attacks NAME` shows of a setting. must_be: its type, and its range where the annotation has one."""

    name: str
    default: Any
    must_be: str
    about: str


@dataclass(frozen=True)
class Listed:
    """What `list` shows of one plug-in; `error` says why it cannot be used, and the rest is then empty."""

    name: str
    summary: str = ""
    paper: str = ""
    access: str = ""
    norms: tuple[str, ...] = ()
    family: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def find_attack(name: str, settings: Mapping[str, Any] = _NONE, others: Iterable[str] = ()) -> Attack:
    """The attack of that name with these settings; PluginError or ConfigError where there is none such.

    others: names that mean something beside its settings, which an error may suggest.

    A name with a colon is one of a family: `foolbox:LinfPGD` is the plug-in `foolbox` with the field name="LinfPGD".
    A plug-in with a field `settings` takes there all that it is given, to check and hand on.
    """
    plugin, colon, member = name.partition(":")
    kind = _load(ATTACKS, plugin, Attack)
    if "settings" in defaults(kind):
        settings = {"settings": dict(settings)}
    if colon:
        if "name" not in defaults(kind):
            raise PluginError(f'unknown attack "{name}": "{plugin}" is one attack and not a family of them')
        settings = {"name": member} | dict(settings)
    with contained(PluginError, f'attack "{name}"'):
        return construct(kind, settings, f'attack "{name}"', others)


def find_defense(name: str, settings: Mapping[str, Any] = _NONE) -> Defense:
    """The defense of that name with these settings; PluginError or ConfigError where there is none such."""
    kind = _load(DEFENSES, name, Defense)
    with contained(PluginError, f'defense "{name}"'):
        return construct(kind, settings, f'defense "{name}"')


def name_of(attack: Attack) -> str:
    """The name under which its class is registered; of a class that is not, its own name in small letters."""
    kind = type(attack)
    place = f"{kind.__module__}:{kind.__qualname__}"
    registered = (name for name, point in _declared(ATTACKS).items() if point.value == place)
    return next(registered, kind.__name__.lower())


def named(entry: Any, what: str) -> tuple[str, dict[str, Any]]:
    """An entry of a list of plug-ins, `pgd` or `{pgd: {steps: 40}}`, as name and settings."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
        if settings is None or isinstance(settings, Mapping):
            return str(name), {str(key): value for key, value in (settings or {}).items()}
    raise ConfigError(f"{what} {entry!r}: write a name, or {{name: {{setting: value}}}}")


def listing(group: Group) -> list[Listed]:
    """All plug-ins of a group by name. One that cannot be imported is listed with its error."""
    rows = []
    for name in sorted(_declared(group)):
        try:
            kind = _load(group, name, group.base)
        except PluginError as error:
            rows.append(Listed(name, error=str(error)))
            continue
        rows.append(
            Listed(
                name,
                kind.summary,
                kind.paper,
                access=kind.access.name.lower() if issubclass(kind, Attack) else "",
                norms=tuple(sorted(kind.norms)) if issubclass(kind, Attack) else (),
                family=kind.family if issubclass(kind, Defense) else "",
                settings={name: value for name, value in defaults(kind).items() if name not in _HANDED_ON},
            )
        )
    return rows


def settings_of(group: Group, name: str) -> list[Setting]:
    """The settings of a plug-in, in their order; PluginError where there is none of that name."""
    kind = _load(group, name, group.base)
    hints = hints_of(kind)
    return [
        Setting(setting, value, spell(hints.get(setting, Any)), sentence(kind, setting))
        for setting, value in defaults(kind).items()
        if setting not in _HANDED_ON
    ]


def every(group: Group, base: type[T]) -> dict[str, type[T]]:
    """All plug-ins of a group, by name; one that cannot be imported is left out with a warning."""
    _check_installed(group)
    found = {}
    for name in _declared(group):
        try:
            found[name] = _load(group, name, base)
        except PluginError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def _declared(group: Group) -> dict[str, EntryPoint]:
    """A package may not take a name of ours; among strangers the first found keeps a name.

    They are looked for again where a folder of packages changed since: to read what all of them say takes longer than
    all else that a name needs.
    """
    return _found(group.entry_points, tuple((path, _changed(path)) for path in sys.path))


def _changed(path: str) -> int | None:
    """When something was last put into a folder or taken out of it, in ns; None where there is none."""
    try:
        return os.stat(path or os.curdir).st_mtime_ns
    except OSError:
        return None


@lru_cache
def _found(group: str, _: tuple[tuple[str, int | None], ...]) -> dict[str, EntryPoint]:
    """As `_declared`; a package is asked for its name once, which reads a file."""
    points = list(entry_points(group=group))
    ours = {id(point.dist): _ours(point) for point in {id(point.dist): point for point in points}.values()}
    found: dict[str, EntryPoint] = {}
    for point in sorted(points, key=lambda point: ours[id(point.dist)], reverse=True):
        found.setdefault(point.name, point)
    return found


def _ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name.replace("-", "_").lower() == "robustbench_local"


def _check_installed(group: Group) -> None:
    """PluginError where none of this package's own is there."""
    if not any(_ours(point) for point in _declared(group).values()):
        raise PluginError(
            f"no {group.word} of this package is registered: it runs from a folder and is not installed, or was before"
            " it had any. Install it with `pip install -e .` there"
        )


def _load(group: Group, name: str, base: type[T]) -> type[T]:
    declared = _declared(group)
    if name not in declared:
        _check_installed(group)
        raise PluginError(
            f'unknown {group.word} "{name}"{did_you_mean(name, declared)}: one of {", ".join(sorted(declared))}'
        )
    point = declared[name]
    origin = f'{group.word} "{name}" ({point.value}{f", from {point.dist.name}" if point.dist else ""})'
    try:
        with contained(PluginError, "it"):
            kind = point.load()
    except Exception as error:  # a stranger's import may die of anything
        raise PluginError(f"{origin} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise PluginError(f"{origin} is {kind!r}: it must be a subclass of {base.__module__}.{base.__name__}")
    return kind
