"""What commands print, and the codes they end with."""

from __future__ import annotations

import shutil
import textwrap

from robustbench_local.core.escaping import shown

OK, FAILED, WRONG, LOST, INTERRUPTED, CUT_SHORT = 0, 1, 2, 5, 130, 141


def say(text: object) -> None:
    """A line on standard output, in which names and paths are only shown."""
    print(shown(text, "terminal"))


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph as wide as the terminal, its later lines further in."""
    return textwrap.fill(
        shown(text, "terminal"),
        shutil.get_terminal_size().columns,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
