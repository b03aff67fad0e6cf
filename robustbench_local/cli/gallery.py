"""`robustbench-local gallery results/mine`: the images behind the numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.parsing import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("gallery", help="the images behind the numbers, of a grid run with save=x_adv")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=3, help="images broken first, broken last, and robust (3 of each)")
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
