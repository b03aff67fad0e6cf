"""Standard output and error, which may be closed, or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def replace_missing() -> None:
    """Streams that were closed before Python started hold nothing; and no file opened later gets their number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.fstat(number)  # somebody's by now
            except OSError:
                os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(nowhere, "w"))


def say(text: str) -> None:
    """A line on standard error, if anybody can hear it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """What is still to be written goes nowhere, at the end as well, where Python would complain once more."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return
