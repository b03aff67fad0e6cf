"""What docstrings say of settings: a sentence after a setting's name and a colon."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

_END = re.compile(r"(?<=[.]) (?=[A-Z0-9`])")  # of a sentence; "et al. 2018" is cut where no capital follows it
_PAPER = re.compile(r"(et al|section|equation|Fig)\.$")


def sentence(kind: type[Any], setting: str) -> str:
    """What the docstring of a plug-in says of a setting, or that of a class that it inherits from; "" for nothing.

    "steps, epochs: ..." says the same of both; what is said ends with the sentence, or where another setting's begins.
    """
    names = "|".join(re.escape(field.name) for field in dataclasses.fields(kind))
    introduced = re.compile(rf"(?<![\w.]){_listed(names)}: ")
    for each in kind.__mro__:
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(vars(each).get("__doc__") or "")):
            text = " ".join(paragraph.split())
            starts = [*introduced.finditer(text)]
            for place, start in enumerate(starts):
                if setting in re.findall(r"\w+", start[0]):
                    end = starts[place + 1].start() if place + 1 < len(starts) else len(text)
                    return _first(text[start.end() : end].strip())
    return ""


def _listed(names: str) -> str:
    return rf"(?:{names})(?:,? (?:and )?(?:{names}))*"


def _first(text: str) -> str:
    """The first sentence."""
    found = ""
    for part in _END.split(text):
        found = f"{found} {part}".strip()
        if not _PAPER.search(found):
            break
    return found.rstrip(";.")
