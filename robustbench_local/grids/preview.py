"""What a grid would do, and what that would cost, its audits included; a few images are tried, and nothing is kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import islice

from torch import nn

from robustbench_local.audit.retrying import Expected, expected_passes
from robustbench_local.audit.stronger import FEW
from robustbench_local.core.access import beyond
from robustbench_local.core.downloads import downloads
from robustbench_local.core.errors import BoundsError
from robustbench_local.grids.cell import Task, applicable
from robustbench_local.grids.certifying import Certifying
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.pace import Pace
from robustbench_local.grids.price import Estimate, Price, bill, seconds_of
from robustbench_local.grids.shelf import Shelf
from robustbench_local.models.priced import priced
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import VERSIONS, Row
from robustbench_local.storage.sealing import plain

# cells that differ in no more than these may fall alike
_ALIKE = (
    *("ids", "data_digest", "split", "weights_digest", "seed", "draws", "attack_sources", "attacker_digest"),
    *VERSIONS,
)


def preview(grid: Grid) -> list[Row]:
    """Each cell's status, its price (see Price), and the seconds that are to be expected, of the CPU where it runs on
    one: `seconds` of the cell, None where nobody knows, and `audit` of the audit that follows a model's last cell.
    """
    with downloads(False):
        return _preview(grid)


def _preview(grid: Grid) -> list[Row]:
    rows: list[Row] = []
    shelf, builder, before = Shelf(grid), grid.builder, _Before(grid)
    for group in grid.groups:
        spec = group.spec
        there, untrained = bool(shelf.made_elsewhere(group)), builder.needs_training(spec)
        model = builder.build_untrained(spec) if untrained else builder.build(spec)
        digest = None if untrained else weights_digest(model)
        tasks = [grid.task(cell, digest) for cell in applicable(group.cells, model)]
        waiting = [task for task in tasks if not there and not shelf.is_done(task.key)]
        if text := bill(model, waiting):
            grid.progress.line(text)
        pace = Pace.of(model, grid.images[spec.data, None], None if waiting else 1)  # the pace of what is done is idle
        found: list[tuple[Task, Estimate]] = []
        for task in tasks:
            done, seconds = task not in waiting, 0.0
            if isinstance(task.cell.attack, Certifying):
                rows.append(_certificate(task, model, "done" if done else "must train" if untrained else "to do"))
                continue
            needs_more = beyond(task.cell.attack.access, model) is not None
            status = "left out" if needs_more else "done" if done else "must train" if untrained else "to do"
            if done:
                found += [(task, Estimate.of_row(row)) for _, row in islice(shelf.good(task.key), 1)]
            elif not needs_more:
                estimate = Estimate.of(task, model, pace, trained=not untrained, before=before.like(task))
                found.append((task, estimate))
                seconds = estimate.seconds
            price = asdict(Price.of(task.cell, len(task.images), pace, task.config.budget))
            known = None if math.isnan(seconds) else seconds
            rows.append(Row(status=status, cell=str(task.cell), **price, seconds=known, audit=0.0))
        attacking = [task for task in waiting if not isinstance(task.cell.attack, Certifying)]
        if attacking and found and priced(model) is None:
            rows[-1]["audit"] = _audit(found, model, pace)
    return rows


def _certificate(task: Task, model: nn.Module, status: str) -> Row:
    """Of a certificate, which counts no passes and is part of no audit."""
    seconds: float | None = 0.0
    if beyond(task.cell.attack.access, model) is not None:
        status = "left out"
    elif status != "done":
        try:
            seconds = seconds_of(task, model)
        except BoundsError:
            status = "left out"
        except Exception:  # a stranger's model may die of anything
            seconds = None
    return Row(status=status, cell=str(task.cell), **asdict(Price(0, 0, 0, 0, 0)), seconds=seconds, audit=0.0)


def _audit(found: Sequence[tuple[Task, Estimate]], model: nn.Module, pace: Pace) -> float:
    """Seconds that the audit of a model's rows takes, about."""
    each = [
        Expected(
            task.cell.attack_name,
            task.cell.threat,
            task.config.targets is None,
            estimate.passes,
            estimate.robust * len(task.images),
        )
        for task, estimate in found
    ]
    cell = found[0][0].cell
    asked = expected_passes(each, pace.classes, *((cell.eot, cell.draws) if pace.stochastic else (1, 1)))
    if not asked:
        return 0.0
    few = Pace.of(model, found[0][0].images, FEW).seconds
    return asked * (few.forwards + few.backwards) / 2  # about as many of either


class _Before:
    """The good rows of a grid's folder and its neighbours, by what they have in common with a cell that is to do."""

    def __init__(self, grid: Grid) -> None:
        self._stores = (grid.store, *grid.neighbours)

    def like(self, task: Task) -> Row | None:
        """One of the same attack on the same kind of model, whatever its weights and images."""
        return self._rows.get(Row(plain({"definition": task.definition})).of_cell(_ALIKE))

    @cached_property
    def _rows(self) -> dict[str, Row]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is damaged in other folders
            return {row.of_cell(_ALIKE): row for store in self._stores for row in store.rows() if row.ok}
