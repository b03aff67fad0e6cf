"""Asking at a bounded rate, and again where an answer got lost: exponential backoff with full jitter, within bounds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from robustbench_local.core.errors import ModelError

T = TypeVar("T")
_FIRST = 0.5  # seconds: the longest wait before the first retry
RETRIED = frozenset({429, 500, 502, 503, 504})


class LostError(Exception):
    """An answer that did not come, and that may come when it is asked for again.

    wait: seconds that the endpoint asks for. refused: it certainly did no work, so nothing was paid.
    """

    def __init__(self, reason: str, *, wait: float | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.refused = wait, refused


class Pace:
    """At most so many requests a second, whichever thread asks: a token bucket that holds one token."""

    def __init__(
        self,
        per_second: float | None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._apart = 1 / per_second if per_second else 0.0
        self._now, self._sleep = now, sleep
        self._next = now()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Until the next request may be sent."""
        with self._lock:
            now = self._now()
            mine = max(now, self._next)
            self._next = mine + self._apart
        if mine > now:
            self._sleep(mine - now)


class Patience:
    """retries: how often one request is repeated. longest: seconds between two tries, at most."""

    def __init__(self, retries: int, longest: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._retries, self._longest, self._sleep = retries, longest, sleep
        self._random = random.Random()  # no result depends on how long somebody waited

    def until_answered(self, ask: Callable[[], T], what: str) -> T:
        """What ask() returns, tried again after each LostError. ModelError with the last reason in the end."""
        for turn in range(self._retries + 1):
            try:
                return ask()
            except LostError as lost:
                reason, wait = str(lost), lost.wait
            if wait is not None and wait > self._longest:
                raise ModelError(
                    f"{what}: {reason}, and asks to wait {wait:.0f} s, more than the {self._longest:g} s of endpoint:"
                    " longest_wait. What was answered is kept, and the same command goes on from there"
                )
            if turn < self._retries:
                jitter = self._random.uniform(0, min(self._longest, _FIRST * 2 ** min(turn, 60)))
                self._sleep(jitter if wait is None else wait)
        raise ModelError(
            f"{what}: no answer in {self._retries + 1} tries, the last time because {reason}. What was answered is"
            " kept, and the same command goes on from there"
        )


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait, which gives them or a date (RFC 9110, 10.2.3); else None."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header) if len(header) < 20 else float("inf")
    try:
        until = parsedate_to_datetime(header)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without its zone
        return None
