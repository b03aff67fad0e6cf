"""Settings as a user writes them -> the typed dataclass that they mean, or an error that helps."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from robustbench_local.errors import ConfigError, RobustBenchError, did_you_mean
from robustbench_local.threat import parse_number

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}


def construct(kind: type[T], settings: Mapping[str, Any], what: str) -> T:
    """kind(**settings), for a dataclass; `what` names it in errors, as in 'attack "pgd"'.

    Values are checked against the fields' annotations. Whole numbers pass for floats, and so does "8/255"; lists
    pass for tuples. ConfigError on an unknown setting, a missing one, a wrong type or what kind itself refuses.
    """
    hints = hints_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in settings:
        if name not in fields:
            known = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ConfigError(f'{what} has no setting "{name}"{did_you_mean(str(name), fields)}: {known}')
    missing = [
        name for name, field in fields.items()
        if name not in settings and field.default is field.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise ConfigError(f"{what} needs a value for {', '.join(missing)}")
    values = {}
    for name, value in settings.items():
        try:
            values[name] = fit(value, hints.get(name, Any))
        except TypeError:
            raise ConfigError(f"{name} of {what} is {value!r}: it must be {spell(hints[name])}") from None
    try:
        return kind(**values)
    except RobustBenchError as error:
        raise type(error)(f"{what}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} refuses {dict(settings)}: {error}") from error


def hints_of(kind: type[Any]) -> dict[str, Any]:
    """The types of the fields; empty where they cannot be resolved (names that only type checkers import)."""
    try:
        return typing.get_type_hints(kind)
    except NameError:
        return {}


def defaults(kind: type[Any]) -> dict[str, Any]:
    """{setting: default}, "required" where there is none."""
    shown = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            shown[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            shown[field.name] = field.default_factory()
        else:
            shown[field.name] = "required"
    return shown


def fit(value: Any, hint: Any) -> Any:
    """value as the annotation wants it; TypeError where it cannot be."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin is Literal:
        # a bool equals 0 or 1 and is not meant
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(fit(item, arguments[0]) for item in value)
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): fit(item, arguments[1]) for key, item in value.items()}
    elif hint is float and not isinstance(value, bool) and isinstance(value, int | float):
        return float(value)
    elif hint is float and isinstance(value, str):
        try:
            return parse_number(value)
        except RobustBenchError:
            raise TypeError from None
    elif hint in (int, str, bool):
        if type(value) is hint:
            return value
    elif value is None and hint in (None, types.NoneType):
        return None
    elif hint is Any or (isinstance(hint, type) and isinstance(value, hint)):
        return value
    raise TypeError


def _fit_union(value: Any, choices: tuple[Any, ...]) -> Any:
    # the value's own type first, so that "8/255" stays a str where it may
    for choice in sorted(choices, key=lambda choice: choice is not type(value)):
        try:
            return fit(value, choice)
        except TypeError:
            continue
    raise TypeError


def spell(hint: Any) -> str:
    """An annotation in words: 'pgd or fgsm_rs', 'a whole number or nothing'."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(spell(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (list, tuple):
        return f"a list of: {spell(arguments[0])}"
    if origin is dict:
        return f"a mapping to: {spell(arguments[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
