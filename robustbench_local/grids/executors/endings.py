"""How a process ended, and what it said last. Nothing here loads torch: those who watch a worker need none."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_FRAMES = 4  # of a crash: what it was, and where in the code, the innermost first
_LONG = 500  # characters of last words


def how_it_ended(code: int) -> str:
    """ "SIGSEGV" or "exit code 7", of what waiting for a process gives."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def last_words(file: Path) -> str:
    """The last thing that it complained of; of a crash where in the code it was."""
    lines = [line.strip() for line in text(file, -20000).splitlines() if line.strip()]
    crashes = [place for place, line in enumerate(lines) if line.startswith("Fatal Python error")]
    if crashes:
        told = lines[crashes[-1] :]  # of every thread, the one that crashed last
        own = next((place for place, line in enumerate(told) if line.startswith("Current thread")), 0)
        lines = [", ".join([told[0], *(line for line in told[own:] if line.startswith("File"))][:_FRAMES])]
    return lines[-1][:_LONG] if lines else ""


def text(file: Path, start: int) -> str:
    """What a file holds from there on; from its end where start is negative."""
    try:
        with open(file, "rb") as opened:
            if start < 0:
                start = max(0, opened.seek(0, os.SEEK_END) + start)
            opened.seek(start)
            return opened.read().decode(errors="surrogateescape")
    except OSError:
        return ""
