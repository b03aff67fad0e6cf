"""`robustbench-local gallery results/mine`: the images behind the numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands
from robustbench_local.core.errors import ConfigError

if TYPE_CHECKING:
    from robustbench_local.report.results import Results
    from robustbench_local.training.builder import ModelBuilder


def add(commands: Commands) -> None:
    parser = commands.add_parser("gallery", help="the images behind the numbers, of a grid run with save=x_adv")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=3, help="images broken first, broken last, and robust (3 of each)")
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="?",
        const=9,
        metavar="9",
        help="instead, pictures on the page for models that have none: so many images of each are attacked once more",
    )
    parser.add_argument("--source", help="where the images come from, as the grid's source")
    parser.add_argument("--weights", help="the checkpoint, where the model came from one")
    parser.add_argument("--allow-pickle", action="store_true")
    parser.add_argument(
        "--trust", action="store_true", help="import and call the functions, and read the paths, that rows name"
    )
    parser.add_argument("--device", default="auto")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.core.device import pick_device
    from robustbench_local.gallery.gallery import write_gallery
    from robustbench_local.report.results import Results
    from robustbench_local.report.write import write_report
    from robustbench_local.training.builder import ModelBuilder

    builder = ModelBuilder(pick_device(options.device), options.source)
    results = Results.read([options.folder])
    if options.pictures is not None:
        return _pictures(results, builder, options)
    page = write_gallery(
        results,
        options.folder,
        builder,
        each=options.each,
        weights=options.weights,
        allow_pickle=options.allow_pickle,
        trust=options.trust,
    )
    if (options.folder / "index.html").is_file():
        write_report(results, options.folder)  # which links it from now on
    say(page)
    return OK


def _pictures(results: Results, builder: ModelBuilder, options: argparse.Namespace) -> int:
    from robustbench_local.gallery.published import draw_missing
    from robustbench_local.report.write import write_report

    if options.pictures < 1:
        raise ConfigError(f"--pictures {options.pictures}: give 1 or more images of each model")
    how = {"weights": options.weights, "allow_pickle": options.allow_pickle, "trust": options.trust}
    for said in draw_missing(results, builder, options.pictures, **how):
        say(said)
    write_report(results, options.folder)
    say(f"leaderboard in {options.folder / 'index.html'}")
    return OK
