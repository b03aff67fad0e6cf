"""Somebody else's code must not end the process: sys.exit, os._exit and a KeyboardInterrupt of its own are errors."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from robustbench_local.core.errors import RobustBenchError

_LOCK = threading.Lock()
_leave = os._exit
_depth = 0
_interrupted = False


class HardExit(SystemExit):
    """What os._exit raises while it is guarded: nothing would be written, and nobody would hear of it."""

    def __str__(self) -> str:
        return f"os._exit({self.code})"


@contextmanager
def guarded() -> Iterator[None]:
    """Meanwhile os._exit raises in this process, and who pressed Ctrl-C is told from code that raises the same.

    What ends the process otherwise (abort, a segmentation fault, a signal) has an exit code of its own, never 0.
    """
    global _depth, _interrupted
    with _LOCK:
        _depth += 1
        if _depth == 1:
            _interrupted = False
            setattr(os, "_exit", _refused(os.getpid()))  # noqa: B010  (mypy refuses to assign to it)
    try:
        with _noticing():
            yield
    finally:
        with _LOCK:
            _depth -= 1
            if not _depth:
                setattr(os, "_exit", _leave)  # noqa: B010


@contextmanager
def contained(kind: type[RobustBenchError], who: str) -> Iterator[None]:
    """What would end the process, raised by `who`, is an error of that kind; a Ctrl-C of the user's passes."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and (_interrupted or not _depth):
            raise
        what = str(error) if isinstance(error, HardExit) else f"{type(error).__name__}: {error}".removesuffix(": ")
        raise kind(f"{who} tried to end the whole process ({what}), which is not for it to do") from error


def _refused(owner: int) -> Callable[[int], NoReturn]:
    def refuse(status: int) -> NoReturn:
        if os.getpid() != owner:  # a child's end is its own affair
            _leave(status)
        raise HardExit(status)

    return refuse


@contextmanager
def _noticing() -> Iterator[None]:
    """Note that SIGINT came, then do what would have been done."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # no KeyboardInterrupt of a signal's comes here
        return

    def note(number: int, frame: FrameType | None) -> None:
        global _interrupted
        _interrupted = True
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
