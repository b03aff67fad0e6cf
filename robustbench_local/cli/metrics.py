"""`robustbench-local metrics results/quickstart`: all metrics of a grid that has run."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands, add_json


def add(commands: Commands) -> None:
    parser = commands.add_parser("metrics", help="all metrics of a grid that has run: metrics results/quickstart")
    parser.add_argument("folder", type=Path, help="of the grid's results; metrics.md and .json are written into it")
    parser.add_argument("--folds", type=int, default=5, help="parts of the images (5)")
    parser.add_argument("--groups", type=Path, help='a JSON file: {"animals": ["cat", "dog"], "hard": [17, 23]}')
    parser.add_argument("--confusion", action="store_true", help="with confusion matrices, clean and under attack")
    add_json(parser, "all of them as JSON, as in metrics.json")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.report import sheets
    from robustbench_local.report.metrics import write_metrics

    found = write_metrics(options.folder, options.groups, options.folds, confusion=options.confusion)
    if options.json:
        print(sheets.json_text(found), end="")
        return OK
    sheets.show(found)
    say(f"the same in {options.folder / 'metrics.md'} and metrics.json")
    return OK
