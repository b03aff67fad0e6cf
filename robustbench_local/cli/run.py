"""`robustbench-local run grid=cifar10_pgd n=100`: a grid, with its tables and pages."""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING

from robustbench_local.cli.output import FAILED, OK, say
from robustbench_local.cli.overrides import name_and_overrides
from robustbench_local.cli.parsing import Commands
from robustbench_local.config.schema import GridConfig
from robustbench_local.core import streams
from robustbench_local.core.escaping import shown

if TYPE_CHECKING:
    from robustbench_local.report.results import Results
    from robustbench_local.storage.row import Row


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "run",
        help="run a grid: run cifar10_pgd n=100, or run data=mnist models=net.onnx",
        description="Run a grid: a packaged one (list grids) or a YAML file of your own; or, without one, the attacks"
        " of a suite on the data and models that you name. Run again, it resumes.",
        epilog="keys, all of which may stand in the file and on the command line:\n\n"
        f"{inspect.getdoc(GridConfig)}\n\nwithout a grid also: suite=quick, standard or full"
        "\n\nexample: robustbench-local run cifar10_pgd n=100"
        " 'attacks=[fgsm,{pgd:{steps:10}}]' threats=[linf:4/255]",
    )
    parser.add_argument("overrides", nargs="*", metavar="grid, key=value")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.preview import show_preview
    from robustbench_local.core.progress import Terminal
    from robustbench_local.grids.grid import Grid
    from robustbench_local.grids.preview import preview
    from robustbench_local.grids.run import run as run_all
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.results import Results
    from robustbench_local.report.write import print_tables

    name, overrides = name_and_overrides(options.overrides, "grid")
    with Terminal() as progress:
        grid = Grid.open(name, overrides, progress)
        rows = preview(grid) if grid.config.dry_run else run_all(grid)
    if grid.config.dry_run:
        show_preview(rows)
        return OK
    results = Results.of(rows, grid.store)
    print_tables(results)
    show_corruptions(results.rows, results.robust_shares, grid.config.baseline)
    say(f"rows in {grid.store.folder / 'rows'}, leaderboard in {grid.store.folder / 'index.html'}, tables beside it")
    return max(failures(rows), contradictions(results))


def contradictions(results: Results) -> int:
    """Name on standard error what is certified and fell to an attack; the exit code."""
    for each in results.contradictions:
        streams.say(f"error: {shown(str(each), 'terminal')}")
    return FAILED if results.contradictions else OK


def failures(rows: list[Row]) -> int:
    """Name the cells that failed on standard error; the exit code."""
    failed = [row for row in rows if not row.ok and not row.left_out]
    if failed:
        again = "the same command tries them again"
        again += ", with retry=true those that crashed or timed out" if any(row.stays for row in failed) else ""
        streams.say(f"{len(failed)} of {len(rows)} cells failed; {again}:")
        for row in failed:
            streams.say("  " + shown(f"{row['error']['cell']}: {row.failure}", "terminal"))
    return FAILED if failed else OK
