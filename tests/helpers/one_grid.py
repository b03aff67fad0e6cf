"""A small grid that any executor can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid

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
