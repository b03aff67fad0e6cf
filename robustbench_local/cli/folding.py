"""Help as wide as the terminal: paragraphs are folded, and of a list of keys every entry for itself."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from robustbench_local.core.streams import folded

_KEY = re.compile(r"(\s*\S.*?\S?\s{2,})(?=\S)")  # a key, and the blanks that set it apart from what is said of it
_DEEPEST = 16  # characters that later lines of an entry stand in, however long its key is


class Folding(argparse.HelpFormatter):
    """Descriptions and epilogs keep their paragraphs and lists. A line further in goes on with the one before it."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_folded(entry, width) for entry in _entries(text.splitlines()))


def _entries(lines: list[str]) -> Iterator[str]:
    """Paragraphs, entries and empty lines, each of them in one line."""
    entry: list[str] = []
    for line in lines:
        further = bool(entry) and _indent(line) > _indent(entry[0])
        prose = bool(entry) and not _KEY.match(entry[0])
        if entry and line.strip() and not _KEY.match(line) and (further or prose):
            entry.append(line.strip())
            continue
        if entry:
            yield " ".join(entry)
        entry = [line] if line.strip() else []
        if not entry:
            yield ""
    if entry:
        yield " ".join(entry)


def _folded(entry: str, width: int) -> str:
    key = _KEY.match(entry)
    return folded(entry, further=" " * min(len(key[0]), _DEEPEST) if key else "", columns=width)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
