"""`robustbench-local status results/cifar10_pgd`: how far a grid is, from another terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import FAILED, OK
from robustbench_local.cli.parsing import Commands, add_json

_EVERY = 2.0  # seconds


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "status",
        help="how far a grid is: done, running, failed, left",
        description="Look into the folder of a grid's results, while it runs or afterwards. Exit code 0, or 1 where"
        " cells failed. With -v all cells that are left are named.",
    )
    parser.add_argument("folder", type=Path, help="results/NAME")
    parser.add_argument("--watch", action="store_true", help="look again every two seconds, until all is done")
    add_json(parser, "as JSON, one object per look")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    import time

    from robustbench_local.cli.status_text import show
    from robustbench_local.grids.status import watch

    look = watch(options.folder)
    while True:
        status = look()
        show(status, options.folder, as_json=options.json, every=options.verbose)
        if not options.watch or not status.left:
            return FAILED if status.failed else OK
        time.sleep(_EVERY)
