"""`robustbench-local train zoo=cifar10/none`: make a model of the zoo."""

from __future__ import annotations

import argparse

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.overrides import check_named, name_and_overrides
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("train", help="make a model of the zoo: train zoo=cifar10/none; resumes")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.core.progress import Terminal
    from robustbench_local.training.zoo_builder import make

    name, overrides = name_and_overrides(options.overrides, "zoo")
    with Terminal() as progress:
        path, figures = make(check_named(name, "zoo"), overrides, progress)
    say(path)
    for key, value in figures.items():
        say(f"  {key}: {value}")
    return OK
