"""`robustbench-local report results/cifar10_pgd`: leaderboard, tables and plots of results."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands
from robustbench_local.core.errors import ConfigError


def add(commands: Commands) -> None:
    parser = commands.add_parser("report", help="leaderboard, tables and plots of results: report results/cifar10_pgd")
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="of a grid, or one that holds several")
    parser.add_argument("--into", type=Path, help="where to write; of one folder, into it")
    parser.add_argument("--title", help="what the page is called, by default like its folder")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.results import Results
    from robustbench_local.report.write import print_tables, write_report

    if options.into is None and len(options.folders) > 1:
        raise ConfigError(f"where should the report on {len(options.folders)} folders go? Give --into FOLDER")
    into = options.into or options.folders[0]
    results = Results.read(options.folders)
    write_report(results, into, options.title)
    print_tables(results)
    show_corruptions(results.rows, results.robust_shares, results.baseline)
    say(f"leaderboard in {into / 'index.html'}; table.md, .csv, .tex, .json, plots and model_info beside it")
    return OK
