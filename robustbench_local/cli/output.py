"""What commands print, and the codes they end with."""

from __future__ import annotations

import json
from typing import Any

from robustbench_local.core.escaping import shown
from robustbench_local.core.streams import folded

OK, FAILED, WRONG, SUSPICIOUS, BROKEN, LOST, INTERRUPTED, CUT_SHORT = 0, 1, 2, 3, 4, 5, 130, 141
EXITS = {
    OK: "all went well, and nothing is worse than it may be",
    FAILED: "run, status: a cell failed; run, evaluate: an attack broke what is certified; check, compare: something is"
    " significantly worse",
    WRONG: "a mistake, or the disk, stopped the command; check: a model cannot be judged",
    SUSPICIOUS: "audit: the robust accuracy cannot be trusted as measured",
    BROKEN: "audit: the model or the attack does not do what it is taken to do",
    LOST: "compare: nothing is worse, and a cell has no counterpart to compare with",
    INTERRUPTED: "Ctrl-C; the same command goes on",
    CUT_SHORT: "whoever read the output left, as head does",
}


def say(text: object) -> None:
    """A line on standard output, in which names and paths are only shown."""
    print(wrapped(str(text)))


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph as wide as the terminal, its later lines further in."""
    return folded(shown(text, "terminal"), indent)


def say_json(value: Any) -> None:
    """A JSON document on standard output, for another program; what JSON does not know stands as text."""
    print(json.dumps(value, indent=1, default=str))
