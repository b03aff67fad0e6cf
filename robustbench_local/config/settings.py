"""Settings as a user writes them -> the typed dataclass that they mean, or an error that helps."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np
from torch import Tensor, nn

from robustbench_local.core.errors import ConfigError, RobustBenchError, did_you_mean
from robustbench_local.core.threat import parse_number

T = TypeVar("T")
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
    Tensor: "a torch tensor (torch.from_numpy makes one of an array)",
    nn.Module: "an nn.Module (load_model gives one for a name)",
}


def construct(kind: type[T], settings: Mapping[str, Any], what: str, others: Iterable[str] = ()) -> T:
    """kind(**settings), for a dataclass; `what` names it in errors, as in 'attack "pgd"'.

    Values are checked against the fields' annotations. Whole numbers pass for floats, and so does "8/255"; lists
    pass for tuples. ConfigError on an unknown setting, a missing one, a wrong type or what kind itself refuses.
    others: names that mean something beside it, which an unknown setting may have been meant for.
    """
    hints = hints_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in settings:
        if name not in fields:
            known = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ConfigError(f'{what} has no setting "{name}"{did_you_mean(str(name), [*fields, *others])}: {known}')
    missing = [
        name
        for name, field in fields.items()
        if name not in settings and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{what} needs a value for {', '.join(missing)}")
    values = {name: fitted(value, hints.get(name, Any), f"{name} of {what}") for name, value in settings.items()}
    try:
        return kind(**values)
    except RobustBenchError as error:
        raise type(error)(f"{what}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} refuses {dict(settings)}: {error}") from error


def fitted(value: Any, hint: Any, what: str, error: type[RobustBenchError] = ConfigError) -> Any:
    """value as the annotation wants it; an error of that kind, which names what, the value and what it must be."""
    try:
        return fit(value, hint)
    except TypeError:
        near = did_you_mean(value, _choices(hint)) if isinstance(value, str) else ""
        raise error(f"{what} is {shown(value)}{near}: it must be {spell(hint)}") from None


def check_fields(instance: Any) -> None:
    """ConfigError where a field of a dataclass, built in Python, is not what its annotation says."""
    hints = hints_of(type(instance))
    for field in dataclasses.fields(instance):
        fitted(getattr(instance, field.name), hints.get(field.name, Any), f"{field.name} of {type(instance).__name__}")


def check_counts(instance: object, *names: str) -> None:
    """ConfigError unless these fields are at least 1."""
    for name in names:
        if getattr(instance, name) < 1:
            raise ConfigError(f"{name} is {getattr(instance, name)}: it must be at least 1")


def fit_fields(instance: Any) -> None:
    """Hold a (frozen) dataclass's fields against their annotations, in its __post_init__."""
    hints = hints_of(type(instance))
    for field in dataclasses.fields(instance):
        value = fitted(getattr(instance, field.name), hints.get(field.name, Any), field.name)
        object.__setattr__(instance, field.name, value)


def hints_of(kind: Any) -> dict[str, Any]:
    """The types of fields or arguments; empty where they cannot be resolved (names that only type checkers import)."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
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
    """value as the annotation wants it; TypeError where it cannot be. numpy's numbers pass for Python's, NaN never."""
    if isinstance(value, np.generic):
        value = value.item()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = fit(value, arguments[0])
        for rule in arguments[1:]:
            value = rule.fit(value)
        return value
    if origin in (Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin in (list, tuple, collections.abc.Sequence):
        return _fit_items(value, origin, arguments)
    if origin in (dict, collections.abc.Mapping):
        if isinstance(value, Mapping):
            return {str(key): fit(item, arguments[1]) for key, item in value.items()}
    elif origin is Literal:
        # a bool equals 0 or 1 and is not meant
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
    elif hint is float:
        return _fit_float(value)
    elif hint in (int, str, bool):
        if type(value) is hint:
            return value
    elif value is None and hint in (None, types.NoneType):
        return None
    elif hint is Any or not isinstance(origin or hint, type) or getattr(hint, "_is_protocol", False):
        return value  # nothing to hold it against
    elif isinstance(value, origin or hint):
        return value
    raise TypeError


def _fit_items(value: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    """A list for a Sequence, of which an array or a tensor is one as well; otherwise what the annotation says."""
    if origin is collections.abc.Sequence and isinstance(value, np.ndarray | Tensor) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, (list, tuple) if origin in (list, tuple) else (list, tuple, range)):
        raise TypeError
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise TypeError
        return tuple(fit(item, hint) for item, hint in zip(value, arguments, strict=True))
    items = (fit(item, arguments[0]) for item in value)
    return tuple(items) if origin is tuple else list(items)


def _fit_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        number = parse_number(value) if isinstance(value, str) else float(value)
    except (RobustBenchError, OverflowError):
        raise TypeError from None
    if math.isnan(number):
        raise TypeError
    return number


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
    if origin is Annotated:
        words = spell(arguments[0])
        for rule in arguments[1:]:
            words = rule.spell(words)
        return words
    if origin in (Union, types.UnionType):
        return " or ".join(spell(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"({', '.join(spell(argument) for argument in arguments)})"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"a list of: {spell(arguments[0])}"
    if origin in (dict, collections.abc.Mapping):
        return f"a mapping to: {spell(arguments[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _choices(hint: Any) -> list[str]:
    """The words that a value may be, where an annotation lists some."""
    if typing.get_origin(hint) is Literal:
        return [choice for choice in typing.get_args(hint) if isinstance(choice, str)]
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]


class _Shown(reprlib.Repr):
    """Values as errors show them: short, and of arrays and objects what they are rather than what they hold."""

    maxstring = maxother = 100
    maxlong = 40

    def repr_Tensor(self, value: Tensor, level: int) -> str:
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"

    def repr_ndarray(self, value: Any, level: int) -> str:
        return f"an array of {value.dtype}, shape {value.shape}"

    def repr_type(self, value: type, level: int) -> str:
        return f"the class {value.__name__}"

    def repr_function(self, value: types.FunctionType, level: int) -> str:
        return f"the function {value.__name__}"

    def repr_instance(self, value: object, level: int) -> str:
        bare = type(value).__repr__ is object.__repr__  # which would show an address
        return f"a {type(value).__name__}" if bare else super().repr_instance(value, level)


def shown(value: Any) -> str:
    """A value in an error's words."""
    return _Shown().repr(value)
