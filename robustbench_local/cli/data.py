"""`robustbench-local data fetch mnist cifar10`: download, verify, cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    data = commands.add_parser("data", help="data fetch mnist cifar10")
    parser = data.add_subparsers(required=True, metavar="command").add_parser("fetch", help="download, verify, cache")
    parser.add_argument("names", nargs="+", metavar="name")
    parser.add_argument("--folder", type=Path, help="look here first, in torchvision's layouts")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.data.cache import fetch

    for path in fetch(options.names, folder=options.folder):
        say(path)
    return OK
