"""Certified accuracy of a grid's smoothed models: a lower bound, and so no cell among those of attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.defenses.randomized_smoothing import RandomizedSmoothing, certified_accuracy, certify
from robustbench_local.grids.grid import Grid
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row, row_key
from robustbench_local.storage.store import Store
from robustbench_local.training.spec import ModelSpec

BLOCK = 10  # images between two reports of progress
_MODEL = ("data", "split", "data_digest", "ids", "model", "weights_digest", "defense", "defense_settings", "seed")


@dataclass(frozen=True)
class Certify:
    """Draws per image: n0 choose the class, n bound its probability; alpha: the risk that a radius is too large."""

    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if self.n0 < 1 or self.n < 1 or not 0 < self.alpha < 1:
            raise ConfigError(f"n0 is {self.n0}, n {self.n}, alpha {self.alpha}: draws are at least 1, alpha in (0, 1)")


def certified_rows(grid: Grid, settings: Certify, radii: Sequence[float], progress: Progress) -> Iterator[Row]:
    """For each smoothed model of the grid a row per radius, in its definition, with `certified_accuracy`.

    Each image's radius is kept in certified/ beside the grid's rows, and what is kept is not measured again.
    """
    store = Store(grid.store.folder / "certified")
    models = {id(cell.model): cell for cell in grid.cells if isinstance(cell.model.defense, RandomizedSmoothing)}
    for cell in models.values():
        images = grid.images[cell.model.data, None]
        model = grid.builder.build(cell.model)
        whole = grid.task(cell, weights_digest(model)).definition
        definition = {key: whole[key] for key in _MODEL} | {"certify": asdict(settings)}
        key = row_key(definition)
        if grid.config.force or not store.done(key):
            found = _radii(grid, cell.model, settings, cell.seed, progress)
            row = {"status": "ok", "definition": definition, "results": {"n": len(images)}}
            store.write(key, row, {"radius": found.numpy()})
        kept = torch.from_numpy(store.arrays(key, "radius")["radius"])
        for radius, accuracy in zip(radii, certified_accuracy(kept, radii), strict=True):
            results = {"n": len(kept), "certified_accuracy": accuracy}
            yield Row(status="ok", definition=definition | {"radius": radius}, results=results)


def _radii(grid: Grid, plan: ModelSpec, settings: Certify, seed: int, progress: Progress) -> torch.Tensor:
    """(N,) float64 on the CPU; NaN where nothing is certified."""
    assert isinstance(plan.defense, RandomizedSmoothing)
    images, model = grid.images[plan.data, None], grid.builder.build(plan)
    found = []
    for start in range(0, len(images), BLOCK):
        rows = slice(start, start + BLOCK)
        draws = Draws(seed, images.ids[rows]).stream("certified")
        asked: dict[str, Any] = asdict(settings)
        found.append(certify(model, images[rows], images.labels[rows], plan.defense.sigma, draws=draws, **asked))
        progress.advance(f"certifying {plan.label}", min(1.0, rows.stop / len(images)))
    return torch.cat(found).double().cpu()
