"""Outcomes as files: the page with its pictures, SARIF for code hosts, JSON for another program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from robustbench_local.regression.outcome import Outcome
from robustbench_local.regression.page import NAME, page
from robustbench_local.regression.sarif import sarif
from robustbench_local.storage.files import whole_file


def write_outcomes(
    outcomes: Sequence[Outcome], folder: Path | None = None, sarif_file: Path | None = None, file: Path | None = None
) -> Iterator[Path]:
    """Those that are asked for: folder/robustness.html, a SARIF file, a JSON file -> their paths, once written."""
    wanted: list[tuple[Path | None, Callable[[], str]]] = [
        (None if folder is None else folder / NAME, lambda: page(outcomes)),
        (sarif_file, lambda: sarif(outcomes)),
        (file, lambda: json.dumps({"outcomes": [each.as_dict() for each in outcomes]}, indent=1) + "\n"),
    ]
    for path, made in wanted:
        if path is not None:
            with whole_file(path) as out:
                out.write(made().encode())
            yield path
