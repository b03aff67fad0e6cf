"""What a JSON value must look like, said as a value: {"n": count, "flags": [text], "note?": maybe(text)}."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

Test = Callable[[Any], bool]

_NUMBERS = (int, float)  # and not bool, which is an int as well
_MOST = sys.float_info.max  # JSON writes whole numbers of any length
_TINY = 1e-9


class Shape:
    """A shape that many values are held against: its test is put together once, which is three times as fast."""

    def __init__(self, shape: Any) -> None:
        self._shape, self._fits = shape, _test(shape)

    def wrong(self, value: Any, where: str) -> str | None:
        """As wrong()."""
        return None if self._fits(value) else wrong(value, self._shape, where)


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


def _test(shape: Any) -> Test:
    """Whether a value has that shape: _wrong(value, shape) is None."""
    if callable(shape):
        return cast(Test, shape)
    if isinstance(shape, dict):
        needed = [(name, _test(inner)) for name, inner in shape.items() if not name.endswith("?")]
        others = [(name[:-1], _test(inner)) for name, inner in shape.items() if name.endswith("?")]
        return lambda value: (
            isinstance(value, dict)
            and all([name in value and test(value[name]) for name, test in needed])
            and all([test(value[name]) for name, test in others if name in value])
        )
    tests = [_test(inner) for inner in shape]
    if isinstance(shape, list):
        (each,) = tests
        return lambda value: isinstance(value, list) and all(map(each, value))
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(tests)
        and all([test(item) for test, item in zip(tests, value, strict=True)])
    )


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    return type(value) is int


def count(value: Any) -> bool:
    return type(value) is int and value >= 0


def number(value: Any) -> bool:
    return type(value) in _NUMBERS and -_MOST <= value <= _MOST


def size(value: Any) -> bool:
    """A number that is not negative."""
    return type(value) in _NUMBERS and 0 <= value <= _MOST


def share(value: Any) -> bool:
    """A number in [0, 1], or as near as arithmetic comes."""
    return type(value) in _NUMBERS and -_TINY <= value <= 1 + _TINY


def difference(value: Any) -> bool:
    """A number in [-1, 1]."""
    return type(value) in _NUMBERS and -1 - _TINY <= value <= 1 + _TINY


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def maybe(shape: Any) -> Test:
    """null, or what has that shape."""
    test = _test(shape)
    return lambda value: value is None or test(value)


def only(shape: dict[str, Any]) -> Test:
    """A mapping of that shape, with nothing else in it."""
    test = _test(shape)
    return lambda value: test(value) and value.keys() == shape.keys()


def either(*shapes: Any) -> Test:
    tests = [_test(shape) for shape in shapes]
    return lambda value: any(test(value) for test in tests)


def one_of(*choices: str) -> Test:
    return lambda value: value in choices


def all_of(shape: Any) -> Test:
    """A mapping, all values of which have that shape."""
    test = _test(shape)
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))
