"""What a JSON value must look like, said as a value: {"n": count, "flags": [text], "note?": maybe(text)}."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]

_TINY = 1e-9


def wrong(value: Any, shape: Any, where: str) -> str | None:
    """What of value is not as shape says, with its place; None where all of it is.

    shape: a test; a dict of shapes by name, where "name?" may be missing and what is not named may be anything; [shape]
    for a list of any length, (shape, shape) for one of that length.
    """
    found = _wrong(value, shape)
    return found and where + found


def _wrong(value: Any, shape: Any) -> str | None:
    """As wrong(), the place within value first: ".flags[2] is 3"; it is put together where something is wrong alone."""
    if callable(shape):  # first, and not left to another call below: most of what there is
        return None if shape(value) else f" is {value!r:.60}"
    match shape:
        case dict():
            if not isinstance(value, dict):
                return f" is {value!r:.60}, not a mapping"
            for name, inner in shape.items():
                key = name.removesuffix("?")
                if key in value:
                    item = value[key]
                    if not (callable(inner) and inner(item)) and (found := _wrong(item, inner)):
                        return f".{key}{found}"
                elif key == name:
                    return f" has no {name}"
        case list() | tuple():
            if not isinstance(value, list) or (isinstance(shape, tuple) and len(value) != len(shape)):
                return f" is {value!r:.60}, not a list" + f" of {len(shape)}" * isinstance(shape, tuple)
            inners = shape if isinstance(shape, tuple) else shape * len(value)
            for place, (item, inner) in enumerate(zip(value, inners, strict=True)):
                if not (callable(inner) and inner(item)) and (found := _wrong(item, inner)):
                    return f"[{place}]{found}"
    return None


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    return type(value) is int


def count(value: Any) -> bool:
    return type(value) is int and value >= 0


def number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def size(value: Any) -> bool:
    """A number that is not negative."""
    return number(value) and value >= 0


def share(value: Any) -> bool:
    """A number in [0, 1], or as near as arithmetic comes."""
    return number(value) and -_TINY <= value <= 1 + _TINY


def difference(value: Any) -> bool:
    """A number in [-1, 1]."""
    return number(value) and -1 - _TINY <= value <= 1 + _TINY


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def maybe(shape: Any) -> Test:
    """null, or what has that shape."""
    return lambda value: value is None or _wrong(value, shape) is None


def only(shape: dict[str, Any]) -> Test:
    """A mapping of that shape, with nothing else in it."""
    return lambda value: _wrong(value, shape) is None and value.keys() == shape.keys()


def either(*shapes: Any) -> Test:
    return lambda value: any(_wrong(value, shape) is None for shape in shapes)


def one_of(*choices: str) -> Test:
    return lambda value: value in choices


def all_of(shape: Any) -> Test:
    """A mapping, all values of which have that shape."""
    return lambda value: isinstance(value, dict) and all(_wrong(each, shape) is None for each in value.values())
