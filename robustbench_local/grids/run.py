"""Running a grid: cells -> rows -> table. What is done is never done again, and one failing cell stops no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Location
from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import ContradictionError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.arrivals import Arrivals
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.executors.choice import carry_out
from robustbench_local.grids.executors.order import plan
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.plan import model_infos
from robustbench_local.grids.preview import preview
from robustbench_local.report import grid_file
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.row import Row

_TURNS = 3  # how often rows are made again that were removed meanwhile


@guarded()
@checked()
def run_grid(grid: Location | None = None, *, progress: Progress | None = None, **overrides: Any) -> list[Row]:
    """Run a packaged grid, or the one in a YAML file, and return its rows, in the order of the cells.

    Without a grid data and models must be given, and `suite` names the attacks on them: quick, standard or full.
    overrides replace what the file says (n=500, attacks=["fgsm"]); config.schema.GridConfig lists the keys. A row has
    status "ok", with its results, or "error", with its error. With dry_run=True nothing runs, and the status is "done",
    "to do" or "must train". Rows and tables are written to results/<name of the grid>/. With worker="0/3" the rows are
    those that there are when this share is done.
    Raises ConfigError, PluginError, ThreatError, ModelError or DataError before anything runs, StoreError where rows
    cannot be written, and ContradictionError, once all is written, where an attack broke what is certified.
    """
    opened = Grid.open(None if grid is None else str(grid), overrides, progress or Progress())
    if opened.config.dry_run:
        return preview(opened)
    rows = run(opened)
    certifies = any(row.certifies for row in rows)
    if certifies and (denied := Results.of(rows, opened.store).contradictions):
        raise ContradictionError("; ".join(map(str, denied)))
    return rows


def run(grid: Grid) -> list[Row]:
    """Every cell's row, and the report on them beside them; of one worker's share no report, unless it is the last."""
    with Arrivals(grid) as arrivals:
        rows = _all(replace(grid, progress=arrivals))
        there = [row for row in rows if row is not None]
        arrivals.take(there)
    if len(there) < len(rows):
        grid.progress.line(
            f"worker {grid.config.worker} has done its share; {len(rows) - len(there)} cells are others' and not done"
            f" yet: robustbench-local status {grid.store.folder}"
        )
        return there
    grid_file.keep(grid.store.folder, grid_file.Said(grid.config.baseline, model_infos(grid.config, grid.cells)))
    write_report(Results.of(there, grid.store), grid.store.folder)
    return there


def measured(grid: Grid) -> list[Row]:
    """Every cell's row; cells that are done are read. Interrupted, it loses at most the cells in flight."""
    return [row for row in _all(grid) if row is not None]


def _all(grid: Grid) -> list[Row | None]:
    """As `measured`, with None where a row is another worker's share and not there yet."""
    grid.store.check_writable()
    grid.running.plan(plan(grid))
    try:
        for _ in range(_TURNS):
            carry_out(grid)
            rows = Bench(grid, trains=grid.config.worker is None).ended()
            if None not in rows or grid.config.worker is not None:
                break
            grid.progress.line("rows were removed or damaged while the grid ran: they are made again")
    finally:
        grid.running.claims.leave()
    if None not in rows:
        grid.running.tidy()
    return rows
