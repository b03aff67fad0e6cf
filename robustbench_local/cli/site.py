"""`robustbench-local site results/ --into public/`: a static site of grids, to publish."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("site", help="a static site of results, to publish: site results/ --into public/")
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="of a grid, or one that holds several")
    parser.add_argument("--into", type=Path, required=True, help="where to write it")
    parser.add_argument("--title", default="Which image classifiers are robust?", help="what the site is called")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.report.site import write_site

    for grid in write_site(options.folders, options.into, options.title):
        say(f"{grid.name}: {' '.join(grid.answer)}")
    say(f"site in {options.into / 'index.html'}")
    return OK
