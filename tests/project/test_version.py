"""One version everywhere, and a changelog that knows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "robustbench_local/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(\d.+)\] - \d{4}-\d\d-\d\d$",  # the newest release, and its date
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def versions(read: Callable[[str], str]) -> set[str]:
    """What the places say, the first of each."""
    return {re.findall(pattern, read(name), re.MULTILINE)[0] for name, pattern in PLACES.items()}


def test_all_places_say_one_version() -> None:
    assert len(versions(text_of)) == 1


@pytest.mark.parametrize("moved", PLACES)
def test_a_place_that_was_forgotten_is_found(moved: str) -> None:
    (version,) = versions(text_of)
    assert len(versions(lambda name: text_of(name).replace(version, "9.9.9") if name == moved else text_of(name))) == 2


def test_the_release_date_is_the_changelogs() -> None:
    (date,) = re.findall(r"^date-released: (.+)$", text_of("CITATION.cff"), re.MULTILINE)
    assert re.search(rf"^## \[\d.+\] - {date}$", text_of("CHANGELOG.md"), re.MULTILINE)
