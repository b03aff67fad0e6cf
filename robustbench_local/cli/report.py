"""`robustbench-local report results/cifar10_pgd`: leaderboard, tables and plots of results, or an assessment."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands
from robustbench_local.core.errors import ConfigError

if TYPE_CHECKING:
    from robustbench_local.report.results import Results

LEADERBOARD, ASSESSMENT = FORMATS = ("leaderboard", "assessment")
_WORD = "format="  # the same as a word between the folders, as settings of grids and audits are given


def add(commands: Commands) -> None:
    parser = commands.add_parser("report", help="leaderboard, tables and plots of results: report results/cifar10_pgd")
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="of a grid, or one that holds several")
    parser.add_argument("--into", type=Path, help="where to write; of one folder, into it")
    parser.add_argument("--title", help="what the page is called, by default like its folder")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="WHAT",
        default=LEADERBOARD,
        help="leaderboard, or assessment: assessment.html and .json for who must sign that a model is robust enough",
    )
    parser.add_argument("--declared", type=float, metavar="0.45", help="assessment: a level to hold against intervals")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="assessment: results to compare with")
    parser.add_argument(
        "--groups", type=Path, metavar="FILE", help="assessment: groups of images, as metrics takes them"
    )
    parser.set_defaults(do=run, overrides=[])  # words that stand after flags


def run(options: argparse.Namespace) -> int:
    from robustbench_local.report.results import Results

    words = [*map(str, options.folders), *options.overrides]
    folders = [Path(word) for word in words if not word.startswith(_WORD)]
    kinds = [word.removeprefix(_WORD) for word in words if word.startswith(_WORD)]
    kind = kinds[-1] if kinds else options.format
    if kind not in FORMATS:
        raise ConfigError(f'there is no format "{kind}": {" or ".join(FORMATS)}')
    if not folders:
        raise ConfigError("of which results? Name a folder, such as results/cifar10_pgd")
    if options.into is None and len(folders) > 1:
        raise ConfigError(f"where should the report on {len(folders)} folders go? Give --into FOLDER")
    into = options.into or folders[0]
    given = [f"--{name}" for name in ("declared", "before", "groups") if getattr(options, name) is not None]
    if given and kind != ASSESSMENT:
        raise ConfigError(f"{', '.join(given)}: these are for --format {ASSESSMENT} alone")
    with _uncollected():
        results = Results.read(folders)
        if kind == ASSESSMENT:
            _assessment(results, into, options)
        else:
            _leaderboard(results, into, options.title)
    return OK


@contextmanager
def _uncollected() -> Iterator[None]:
    """Rows stay to the end: to look through them for cycles again and again takes an eighth of a long report."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _leaderboard(results: Results, into: Path, title: str | None) -> None:
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.write import print_tables, write_report

    write_report(results, into, title)
    print_tables(results)
    show_corruptions(results.rows, results.robust_shares, results.baseline)
    say(f"leaderboard in {into / 'index.html'}; table.md, .csv, .tex, .json, plots and model_info beside it")


def _assessment(results: Results, into: Path, options: argparse.Namespace) -> None:
    from robustbench_local.report.assessment_page import write_assessment
    from robustbench_local.report.members import read_groups
    from robustbench_local.report.results import Results

    found = write_assessment(
        results,
        into,
        options.title,
        options.declared,
        Results.read([options.before]) if options.before is not None else None,
        read_groups(options.groups) if options.groups is not None else None,
    )
    conditions = sum(len(subject.conditions) + len(subject.shifts) for subject in found.subjects)
    say(
        f"assessment {found.identification[:16]} in {into / 'assessment.html'}, and assessment.json beside it: models"
        f" {len(found.subjects)}, conditions {conditions}, deviations {len(found.deviations)}. {found.statement}"
    )
