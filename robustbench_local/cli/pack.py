"""`robustbench-local pack results/quickstart`: rows into one small archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("pack", help="rows into one small archive; they are read from there as well")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.storage.archive import NAME
    from robustbench_local.storage.packing import pack

    for folder in options.folders:
        count, size = pack(folder)
        say(f"{folder / NAME}: {count} files, {size / 1024:.0f} KiB")
    return OK
