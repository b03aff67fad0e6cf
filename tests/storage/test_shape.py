"""A shape's test, put together once, finds wrong what the walk through value and shape finds wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from robustbench_local.storage import shape as shapes
from robustbench_local.storage.schema import CELL, RECORD
from robustbench_local.storage.shape import Shape, all_of, count, either, flag, maybe, number, only, share, text, wrong
from tests.helpers.rows import a_row

ODD: tuple[Any, ...] = (None, True, -1, 2, 0.5, 1.5, 10**400, float("nan"), "x", [], [1, "x"], {}, {"x": 1})
SHAPE = {
    "a": text,
    "b?": [count],
    "c": (share, share),
    "d": {"e?": maybe(number), "f": either(flag, [text])},
    "g?": all_of(maybe({"h": number})),
    "i": only({"j": count}),
}
VALUE = {
    "a": "x",
    "b": [1, 2],
    "c": [0, 1.0],
    "d": {"e": 2.5, "f": ["x"], "more": 1},
    "g": {"x": None, "y": {"h": -3}},
    "i": {"j": 1},
}


def spoilt(value: Any) -> Iterator[Any]:
    """The value with something else in one place, or without it, or with more."""
    yield from ODD
    if isinstance(value, dict):
        yield value | {"further": 1}
        for key, item in value.items():
            yield {other: each for other, each in value.items() if other != key}
            yield from (value | {key: each} for each in spoilt(item))
    elif isinstance(value, list):
        yield from (value[:-1], [*value, 1])
        for place, item in enumerate(value):
            yield from ([*value[:place], each, *value[place + 1 :]] for each in spoilt(item))


def compared(value: Any, shape: Any) -> tuple[int, int]:
    """How many of the spoilt values are right, and how many wrong, as both say."""
    once, found = Shape(shape), [0, 0]
    for each in (value, *spoilt(value)):
        before = copy.deepcopy(each)
        said = wrong(each, shape, "it")
        assert once.wrong(each, "it") == said, json.dumps(each)
        assert shapes._test(shape)(each) is (said is None), json.dumps(each)
        assert repr(each) == repr(before)
        found[said is not None] += 1
    return found[0], found[1]


def test_both_find_the_same_wrong() -> None:
    right, bad = compared(VALUE, SHAPE)
    assert right > 20 and bad > 200


@pytest.mark.parametrize("robust", [[1, 0, 1, 1], None], ids=["a good row", "an error"])
def test_both_find_the_same_wrong_in_rows(robust: list[int] | None) -> None:
    row = {**a_row(robust)[0], "arrays": dict.fromkeys(("labels", "ids", "clean", "robust"), "0"), "created": "today"}
    for shape in (RECORD, CELL):
        right, bad = compared(row, shape[robust is not None])
        assert right > 20 and bad > 50


def test_a_test_that_looks_at_what_must_be_there_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shapes._test

    def hasty(shape: Any) -> shapes.Test:
        needed = isinstance(shape, dict) and {name: each for name, each in shape.items() if not name.endswith("?")}
        return whole(needed or shape)

    monkeypatch.setattr(shapes, "_test", hasty)
    with pytest.raises(AssertionError):
        compared(VALUE, SHAPE)


def test_whole_numbers_that_no_float_holds_are_none() -> None:
    assert number(10**300) and not number(10**400) and not number(-(10**400)) and not share(10**400)
