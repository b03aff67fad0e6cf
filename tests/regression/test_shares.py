"""Per-image figures as lines of a lock file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_local.core.errors import StoreError
from robustbench_local.regression.shares import IMAGES, coarse, margins, read, written


@given(st.integers(1, 400), st.lists(st.integers(0, 400), max_size=200))
def test_what_is_written_is_read(levels: int, counts: list[int]) -> None:
    values = np.minimum(np.array(counts, dtype=np.float64), levels) / levels
    lines = written(values, levels)
    assert len(lines) == -(-len(values) // IMAGES)
    assert np.array_equal(read(lines, levels, len(values)), values)


def test_an_image_that_changes_changes_one_line() -> None:
    bits = np.ones(500)
    before, bits[130] = written(bits, 1), 0
    assert [one != two for one, two in zip(before, written(bits, 1), strict=True)] == [place == 2 for place in range(8)]
    assert sum(map(len, before)) == 126


@pytest.mark.parametrize(
    ("lines", "levels", "count"),
    [(["ff"], 1, 9), (["ff", "ff"], 1, 8), (["zz"], 1, 8), (["ff"], 20, 2), (["1"], 20, 1), ([], 1, 1)],
)
def test_lines_that_hold_something_else_are_refused(lines: list[str], levels: int, count: int) -> None:
    with pytest.raises(StoreError, match="do not hold"):
        read(lines, levels, count)


def test_no_image_has_more_than_all_draws() -> None:
    with pytest.raises(StoreError, match="21 of 20"):
        read(["15"], 20, 1)


def test_margins_are_kept_to_a_sixteenth_and_bounded() -> None:
    values = np.array([0.0, 1.03, -2.5, 100.0, -100.0, np.nan, np.inf])
    found = margins(read(written(coarse(values), 255), 255, len(values)))
    assert np.abs(found[:3] - values[:3]).max() <= 1 / 32
    assert found[3] > 7.9 and found[4] == found[5] == -8 and found[6] == found[3]
