"""Standard output and error, which may be closed, or full, and are as wide as they are."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from contextvars import ContextVar
from typing import TextIO

QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)  # nothing but errors on standard error
_NARROWEST = 30


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


def width() -> int:
    """Columns of standard output: COLUMNS where that is set, the terminal's own, 80 where it is none."""
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def folded(text: str, indent: str = "", further: str = "    ", columns: int | None = None) -> str:
    """A paragraph of so many columns, by default as wide as standard output; `further` in from its second line on.

    It is folded at blanks alone, so that names and paths can be copied: a longer one stands out.
    """
    return textwrap.fill(
        text,
        columns or width(),
        initial_indent=indent,
        subsequent_indent=indent + further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def heard(text: str) -> str:
    """As it stands on standard error: folded on a terminal, and whole where it is kept."""
    if not sys.stderr.isatty():
        return text
    return "\n".join(folded(line.strip(), line[: len(line) - len(line.lstrip())]) for line in text.split("\n"))


def say(text: str) -> None:
    """A line on standard error, if anybody can hear it."""
    try:
        print(heard(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """What is still to be written goes nowhere, at the end as well, where Python would complain once more."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return
