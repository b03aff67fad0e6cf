"""`robustbench-local list attacks`: what there is, by name."""

from __future__ import annotations

import argparse

from robustbench_local.cli.output import OK, wrapped
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("list", help="what there is, by name")
    parser.add_argument("what", choices=["attacks", "defenses", "grids", "models", "data"])
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.listings import LISTS

    for item in LISTS[options.what]():
        print(wrapped(f"{item.name}  {item.about}"))
        for key, value in item.facts.items():
            if value:
                print(wrapped(f"{key}: {value}", "    "))
    return OK
