"""Retries within bounds, and the rate: with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from robustbench_local.core.errors import ModelError
from robustbench_local.models.http.patience import LostError, Pace, Patience, retry_after


def failing(times: int, wait: float | None = None) -> Callable[[], str]:
    left = iter([True] * times)

    def ask() -> str:
        if next(left, False):
            raise LostError("it went dark", wait=wait)
        return "answer"

    return ask


def test_waits_double_are_jittered_and_bounded() -> None:
    waits: list[float] = []
    for _ in range(200):
        assert Patience(6, 4.0, waits.append).until_answered(failing(6), "net") == "answer"
    turns = [waits[turn::6] for turn in range(6)]
    for turn, own in enumerate(turns):
        bound = min(4.0, 0.5 * 2**turn)
        assert 0 <= min(own) < 0.1 * bound and 0.9 * bound < max(own) <= bound  # all of the range is used


def test_the_last_reason_is_named_in_the_end() -> None:
    waits: list[float] = []
    with pytest.raises(ModelError, match=r"net: no answer in 3 tries, .* it went dark.*same command"):
        Patience(2, 60, waits.append).until_answered(failing(3), "net")
    assert len(waits) == 2  # none after the last try


def test_what_the_server_asks_to_wait_is_honoured_within_bounds() -> None:
    waits: list[float] = []
    Patience(2, 60, waits.append).until_answered(failing(2, wait=7.0), "net")
    assert waits == [7.0, 7.0]
    with pytest.raises(ModelError, match="asks to wait 3600 s, more than the 60 s"):
        Patience(2, 60, waits.append).until_answered(failing(1, wait=3600.0), "net")
    assert waits == [7.0, 7.0]


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert retry_after("12") == 12 and soon is not None and 25 < soon <= 30
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("9" * 400) == float("inf")
    assert [retry_after(text) for text in (None, "", "soon", "-3", "1e3", "٣")] == [None] * 5 + [3]


def test_requests_are_as_far_apart_as_the_rate_says() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        assert seconds > 0
        now += seconds

    pace, sent = Pace(4.0, now=lambda: now, sleep=sleep), []
    for pause in (0, 0, 0, 5, 0, 0.1, 0):
        now += pause
        pace.wait()
        sent.append(now)
    assert sent == pytest.approx([0, 0.25, 0.5, 5.5, 5.75, 6.0, 6.25])  # a pause saves nothing up
    Pace(None, now=lambda: now, sleep=lambda _: pytest.fail("it waited")).wait()
