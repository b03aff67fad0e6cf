"""Whether anything may be fetched from a network just now: a dry run fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_allowed = ContextVar("downloads", default=True)


@contextmanager
def downloads(allow: bool) -> Iterator[None]:
    """In this block they are allowed, or not: whoever fetches asks `downloads_allowed` and says what is missing."""
    token = _allowed.set(allow)
    try:
        yield
    finally:
        _allowed.reset(token)


def downloads_allowed() -> bool:
    return _allowed.get()
