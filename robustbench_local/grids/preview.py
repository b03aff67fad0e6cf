"""What a grid would do, and what that would cost; nothing runs."""

from __future__ import annotations

from dataclasses import asdict, replace

from robustbench_local.core.access import beyond
from robustbench_local.grids.cell import applicable
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.price import Pace, Price, bill
from robustbench_local.grids.shelf import Shelf
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row


def preview(grid: Grid) -> list[Row]:
    """Each cell's status, and its price (see Price); what is done costs no more seconds."""
    rows: list[Row] = []
    shelf, builder = Shelf(grid), grid.builder
    for group in grid.groups:
        spec = group.spec
        there, untrained = bool(shelf.made_elsewhere(group)), builder.needs_training(spec)
        model = builder.build_untrained(spec) if untrained else builder.build(spec)
        pace = Pace.of(model, grid.images[spec.data, None])
        digest = None if untrained else weights_digest(model)
        tasks = [grid.task(cell, digest) for cell in applicable(group.cells, model)]
        waiting = [task for task in tasks if not there and not shelf.is_done(task.key)]
        if text := bill(model, waiting):
            grid.progress.line(text)
        for task in tasks:
            needs_more = beyond(task.cell.attack.access, model) is not None
            done = task not in waiting
            status = "left out" if needs_more else "done" if done else "must train" if untrained else "to do"
            price = Price.of(task.cell, len(task.images), pace, task.config.budget)
            if done or needs_more:
                price = replace(price, seconds=0.0)
            rows.append(Row(status=status, cell=str(task.cell), **asdict(price)))
    return rows
