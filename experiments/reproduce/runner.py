"""One reproduction, run: its grid, its certificates, and every figure beside what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.reproduce.certified import Certify, certified_rows
from experiments.reproduce.compare import Compared, compare
from experiments.reproduce.overview import overview
from experiments.reproduce.page import page
from experiments.reproduce.published import Reproduction
from robustbench_local.config import reading
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.run import run
from robustbench_local.models.zoo import zoo_names
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.row import Row
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.recipes import parse_recipe, recipe_file
from robustbench_local.training.spec import ModelSpec

RESULTS = Path("results/reproductions")


class NotHereError(ConfigError):
    """Something must be there first: the authors' weights, or a network that takes long to train."""


def reproduce(
    item: Reproduction, overrides: Mapping[str, Any], progress: Progress, folder: Path = RESULTS
) -> list[Compared]:
    """Run the reproduction's grid; write published.json and published.md beside its rows, and the overview above.

    Models whose network is to come from the zoo, and is not there, are left out, and their figures say how to train
    it. NotHereError where that leaves no model, or where a key that the reproduction needs is not given.
    """
    grid, waiting = opened(item, overrides, progress, folder)
    rows = run(grid) + waiting
    if item.certify:
        radii = sorted({figure.cell["radius"] for figure in item.figures if "radius" in figure.cell})
        settings = construct(Certify, item.certify, f"certify of {item.name}")
        rows += certified_rows(grid, settings, radii, progress)
    compared = [compare(figure, rows) for figure in item.figures]
    own = grid.store.folder
    write_figures(own, compared)
    _write(own / "published.md", page(item, compared, overrides))
    _write(own.parent / "README.md", overview(own.parent))
    return compared


def write_figures(folder: Path, compared: Iterable[Compared]) -> None:
    """published.json, from which the overview is made."""
    kept = [asdict(each) | {"difference": each.difference, "verdict": each.verdict} for each in compared]
    _write(folder / "published.json", json.dumps(kept, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def opened(
    item: Reproduction, overrides: Mapping[str, Any], progress: Progress, folder: Path = RESULTS
) -> tuple[Grid, list[Row]]:
    """The grid without what must wait for a network of the zoo, and for each cell left out a row that says so."""
    lacking = [f"{item.name} needs {key}=PATH: {how}" for key, how in item.needs.items() if key not in overrides]
    if lacking:
        raise NotHereError("; ".join(lacking))
    grid = Grid.open(str(item.grid), {"results": str(folder), **overrides}, progress)
    plans = {id(cell.model): cell.model for cell in grid.cells}
    missing = {key: name for key, plan in plans.items() if (name := untrained(plan, grid.builder))}
    waiting = [
        Row(
            status="waits",
            waits=f"not run; first: {_train(missing[id(cell.model)])}",
            definition=grid.task(cell, None).definition,
        )
        for cell in grid.cells
        if id(cell.model) in missing
    ]
    grid = grid.only(lambda cell: id(cell.model) not in missing)
    if not grid.cells:
        first = "; ".join(map(_train, dict.fromkeys(missing.values())))
        raise NotHereError(f"{item.name} is about a network that is not trained yet; first: {first}")
    return grid, waiting


def untrained(plan: ModelSpec, builder: ModelBuilder) -> str | None:
    """The zoo's name of the model's network, where it has a recipe but no checkpoint: that takes long, so is asked for.

    None where the network is there, and where no recipe of the zoo gives it: it is then trained at first use.
    """
    if not builder.needs_training(plan):
        return None
    for name in sorted(set(reading.names("zoo")) - set(zoo_names())):
        recipe = parse_recipe(recipe_file(name), f"zoo recipe {name}")
        if replace(recipe, defense=recipe.defense.as_trained()) == plan.recipe:
            return name
    return None


def _train(name: str) -> str:
    return f"robustbench-local train zoo={name}"
