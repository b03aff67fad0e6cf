"""A small grid that any executor can run, and what must come out the same whichever does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid
from robustbench_local.storage.store import Store

GRID = """
data: mnist
source: bundled
n: 24
models: [mnist_small]
defenses: [none, {bit_depth: {bits: 3}}]
attacks: [fgsm, {pgd: {steps: 3}}]
threats: ["linf:0.1"]
device: cpu
"""


def written(folder: Path, text: str = GRID) -> Path:
    """The grid's file, in that folder."""
    file = folder / "one.yaml"
    file.write_text(text)
    return file


def opened(folder: Path, results: str, progress: Progress | None = None, **overrides: Any) -> Grid:
    """The grid of the file in that folder, with its results in a folder there."""
    overrides = {"results": str(folder / results), **overrides}
    return Grid.open(str(folder / "one.yaml"), overrides, progress or Progress())


def outcome(results: Path) -> dict[str, tuple[dict[str, Any], dict[str, bytes]]]:
    """Of every row its results but for the seconds, and its arrays, bit for bit."""
    store = Store(results / "one")
    found = {}
    for row in store.rows():
        said = {name: value for name, value in (row.get("results") or {}).items() if name != "seconds"}
        arrays = store.arrays(row.key, *row.array_names) if row.ok else {}
        found[row.key] = said, {name: np.ascontiguousarray(array).tobytes() for name, array in arrays.items()}
    return found
