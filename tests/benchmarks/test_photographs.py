"""2,000 photographs take little memory, and the same digest with one worker and with two."""

from __future__ import annotations

import pytest

from benchmarks.photographs import measured

MOST_MB = 600


@pytest.mark.slow
def test_two_thousand_photographs_are_never_in_memory() -> None:
    runs = measured(2000)
    print(*runs, sep="\n")
    assert {run["images"] for run in runs} == {2000} and len({run["digest"] for run in runs}) == 1
    assert max(run["peak_mb"] for run in runs) < MOST_MB
