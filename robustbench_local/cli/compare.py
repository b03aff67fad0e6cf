"""`robustbench-local compare BEFORE AFTER`: what changed between two results folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import FAILED, LOST, OK
from robustbench_local.cli.parsing import Commands, add_json
from robustbench_local.core.errors import ConfigError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="what changed between two results folders; exit code 1: worse",
        description="Compare two results folders, cell by cell and image by image. Exit code 0: nothing is"
        " significantly worse; 1: something is; 5: nothing is, but a cell of the first has no counterpart to compare"
        " with.",
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--alpha", type=float, default=0.05, help="the risk of calling luck a change, over all cells")
    parser.add_argument(
        "--map", action="append", default=[], metavar="OLD=NEW", help="a model or defense that was renamed; repeatable"
    )
    add_json(parser, "what was found as JSON, instead of tables")
    parser.add_argument("--out", type=Path, help="a JSON file for what was found")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.report.compare import compare, json_text
    from robustbench_local.report.compare_text import show
    from robustbench_local.report.results import Results
    from robustbench_local.storage.files import whole_file

    names = dict(map(_renaming, options.map))
    if len(names) < len(options.map):
        raise ConfigError(f"--map names something twice: {', '.join(options.map)}")
    changes = compare(Results.read([options.before]), Results.read([options.after]), options.alpha, names)
    if options.json:
        print(json_text(changes), end="")
    else:
        show(changes, options.alpha)
    if options.out is not None:
        with whole_file(options.out) as file:
            file.write(json_text(changes).encode())
    if any(change.worse for change in changes):
        return FAILED
    return LOST if any(change.lost for change in changes) else OK


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise ConfigError(f'--map "{text}": write OLD=NEW, the name before and the name after')
    return old, new
