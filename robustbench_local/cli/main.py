"""The command line: run a grid, report on its rows, audit a model, list what there is, fetch data, train."""

from __future__ import annotations

import argparse
import inspect
import shlex
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from robustbench_local.core import streams
from robustbench_local.core.errors import ConfigError, RobustBenchError
from robustbench_local.core.escaping import shown

# whatever takes longer to load than a keypress is loaded by the command that needs it, where Ctrl-C is expected

OK, FAILED, WRONG, LOST, INTERRUPTED, CUT_SHORT = 0, 1, 2, 5, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 where a cell failed; 2 where a mistake, or the disk, stopped it; 3 or 4 where an audit found a
    model suspicious or broken; 5 where compare lost a cell.

    130 after Ctrl-C; 141 where whoever read the output left.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    streams.replace_missing()
    formatted = warnings.formatwarning
    warnings.formatwarning = _in_a_line
    try:
        code = _do(_parser().parse_args(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        again = shlex.join(["robustbench-local", *arguments])
        streams.say(f"\ninterrupted; what is finished is kept. The same command goes on:\n  {again}")
        return INTERRUPTED
    except BrokenPipeError:  # whoever was reading along, as `head` does, has read enough
        streams.abandon(sys.stdout)
        return CUT_SHORT
    except OSError as error:  # the disk behind standard output is full, say
        streams.abandon(sys.stdout)
        streams.say(f"error: {shown(error, 'terminal')}; what is finished is kept")
        return WRONG
    finally:
        warnings.formatwarning = formatted


def _in_a_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as a user reads it, without the line of ours that gave it."""
    return f"warning: {shown(message, 'terminal')}\n"


def _do(options: argparse.Namespace) -> int:
    try:
        from robustbench_local.core.containment import guarded

        with guarded():
            code: int = options.do(options)
        return code
    except RobustBenchError as error:
        streams.say(f"error: {shown(error, 'terminal')}")
    except SystemExit as error:
        how = shown(repr(error), "terminal")
        streams.say(f"error: somebody's code ended this command ({how}); what is finished is kept")
    return WRONG


def _parser() -> argparse.ArgumentParser:
    from robustbench_local.cli.audit import AuditConfig
    from robustbench_local.config.schema import GridConfig

    parser = argparse.ArgumentParser(prog="robustbench-local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="run a grid: run grid=cifar10_pgd n=100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a grid: a packaged one (list grids) or a YAML file of your own. Run again, it goes on.",
        epilog="keys, all of which may stand in the file and on the command line:\n\n"
        f"{inspect.getdoc(GridConfig)}\n\nexample: robustbench-local run grid=cifar10_pgd n=100"
        " 'attacks=[fgsm,{pgd:{steps:10}}]' threats=[linf:4/255]",
    )
    run.add_argument("overrides", nargs="*", metavar="key=value")
    run.set_defaults(do=_run)
    metrics = commands.add_parser("metrics", help="all metrics of a grid that has run: metrics results/quickstart")
    metrics.add_argument("folder", type=Path, help="of the grid's results; metrics.md and .json are written into it")
    metrics.add_argument("--folds", type=int, default=5, help="parts of the images (5)")
    metrics.add_argument("--groups", type=Path, help='a JSON file: {"animals": ["cat", "dog"], "hard": [17, 23]}')
    metrics.add_argument("--confusion", action="store_true", help="with confusion matrices, clean and under attack")
    metrics.set_defaults(do=_metrics)
    report = commands.add_parser("report", help="leaderboard, tables and plots of results: report results/cifar10_pgd")
    report.add_argument("folders", nargs="+", type=Path, metavar="folder", help="of a grid, or one that holds several")
    report.add_argument("--into", type=Path, help="where to write; of one folder, into it")
    report.add_argument("--title", help="what the page is called, by default like its folder")
    report.set_defaults(do=_report)
    compare = commands.add_parser(
        "compare",
        help="what changed between two results folders; exit code 1: worse",
        description="Compare two results folders, cell by cell and image by image. Exit code 0: nothing is"
        " significantly worse; 1: something is; 5: nothing is, but a cell of the first has no counterpart to compare"
        " with.",
    )
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.add_argument("--alpha", type=float, default=0.05, help="the risk of calling luck a change, over all cells")
    compare.add_argument(
        "--map", action="append", default=[], metavar="OLD=NEW", help="a model or defense that was renamed; repeatable"
    )
    compare.add_argument("--out", type=Path, help="a JSON file for what was found")
    compare.set_defaults(do=_compare)
    pack = commands.add_parser("pack", help="rows into one small archive; they are read from there as well")
    pack.add_argument("folders", nargs="+", type=Path)
    pack.set_defaults(do=_pack)
    gallery = commands.add_parser("gallery", help="the images behind the numbers, of a grid run with save=x_adv")
    gallery.add_argument("folder", type=Path)
    gallery.add_argument("--each", type=int, default=3, help="images that fell first, that fell last, that stood")
    gallery.add_argument("--source", help="where the images come from, as the grid's source")
    gallery.add_argument("--weights", help="the checkpoint, where the model came from one")
    gallery.add_argument("--allow-pickle", action="store_true")
    gallery.add_argument(
        "--trust", action="store_true", help="import and call the functions, and read the paths, that rows name"
    )
    gallery.add_argument("--device", default="auto")
    gallery.set_defaults(do=_gallery)
    show = commands.add_parser("list", help="what there is, by name")
    show.add_argument("what", choices=["attacks", "defenses", "grids", "models", "data"])
    show.set_defaults(do=_list)
    data = commands.add_parser("data", help="data fetch mnist cifar10")
    fetch = data.add_subparsers(required=True, metavar="command").add_parser("fetch", help="download, verify, cache")
    fetch.add_argument("names", nargs="+", metavar="name")
    fetch.add_argument("--folder", type=Path, help="look here first, in torchvision's layouts")
    fetch.set_defaults(do=_fetch)
    train = commands.add_parser("train", help="make a model of the zoo: train zoo=cifar10/none; resumes")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    train.set_defaults(do=_train)
    audit = commands.add_parser(
        "audit",
        help="a report card of one model: audit zoo:mnist/none data=mnist threat=linf:0.3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run the evaluation checklist on one model (list models) and print a report card: sound (exit code"
        " 0), suspicious (3) or broken (4).",
        epilog=f"keys:\n\n{inspect.getdoc(AuditConfig)}",
    )
    audit.add_argument("model")
    audit.add_argument("overrides", nargs="*", metavar="key=value")
    audit.set_defaults(do=_audit)
    return parser


def _named(options: argparse.Namespace, what: str) -> tuple[str, dict[str, Any]]:
    """The value of the key `what`, and the other overrides."""
    from robustbench_local.config import reading

    values = reading.parse(options.overrides)
    name = values.pop(what, None)
    if name is None:
        known = ", ".join(reading.names(what))
        raise ConfigError(f"which {what}? Give {what}=NAME: one of {known}, or a path to a .yaml file")
    return str(name), values


def _run(options: argparse.Namespace) -> int:
    from robustbench_local.core.progress import Terminal
    from robustbench_local.grids.grid import Grid
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.results import Results
    from robustbench_local.report.write import print_tables

    name, overrides = _named(options, "grid")
    with Terminal() as progress:
        grid = Grid(name, overrides, progress)
        rows = grid.preview() if grid.config.dry_run else grid.run()
    if grid.config.dry_run:
        show_preview(rows)
        return OK
    results = Results.of(rows, grid.store)
    print_tables(results)
    show_corruptions(results.rows, results.standing, grid.config.baseline)
    _say(f"rows in {grid.store.folder / 'rows'}, leaderboard in {grid.store.folder / 'index.html'}, tables beside it")
    failed = [row["error"] for row in rows if row["status"] != "ok"]
    if failed:
        streams.say(f"{len(failed)} of {len(rows)} cells failed; the same command tries them again:")
        for error in failed:
            streams.say("  " + shown(f"{error['cell']}: {error['type']}: {error['message']}", "terminal"))
    return FAILED if failed else OK


def _report(options: argparse.Namespace) -> int:
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.results import Results
    from robustbench_local.report.write import print_tables, write_report

    if options.into is None and len(options.folders) > 1:
        raise ConfigError(f"where should the report on {len(options.folders)} folders go? Give --into FOLDER")
    into = options.into or options.folders[0]
    results = Results.read(options.folders)
    write_report(results, into, options.title)
    print_tables(results)
    show_corruptions(results.rows, results.standing, results.baseline)
    _say(f"leaderboard in {into / 'index.html'}; table.md, .csv, .tex, .json, plots and model_info beside it")
    return OK


def _compare(options: argparse.Namespace) -> int:
    from robustbench_local.report.compare import compare, json_text
    from robustbench_local.report.compare_text import show
    from robustbench_local.report.results import Results
    from robustbench_local.storage.files import whole_file

    names = dict(map(_renaming, options.map))
    if len(names) < len(options.map):
        raise ConfigError(f"--map names something twice: {', '.join(options.map)}")
    changes = compare(Results.read([options.before]), Results.read([options.after]), options.alpha, names)
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


def _pack(options: argparse.Namespace) -> int:
    from robustbench_local.storage.archive import NAME
    from robustbench_local.storage.packing import pack

    for folder in options.folders:
        count, size = pack(folder)
        _say(f"{folder / NAME}: {count} files, {size / 1024:.0f} KiB")
    return OK


def _gallery(options: argparse.Namespace) -> int:
    from robustbench_local.core.device import pick_device
    from robustbench_local.gallery.gallery import write_gallery
    from robustbench_local.report.results import Results
    from robustbench_local.training.builder import ModelBuilder

    builder = ModelBuilder(pick_device(options.device), options.source)
    results = Results.read([options.folder])
    _say(
        write_gallery(
            results,
            options.folder,
            builder,
            each=options.each,
            weights=options.weights,
            allow_pickle=options.allow_pickle,
            trust=options.trust,
        )
    )
    return OK


def show_preview(rows: list[dict[str, Any]]) -> None:
    """The cells of a dry run below their models, and what all of them take."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for model, group in groupby(rows, key=lambda row: str(row["cell"]).partition(" | ")[0]):
        cells = list(group)
        title = shown(f"{model}: about {sum(row['seconds'] for row in cells):,.0f} s", "terminal")
        table = Table(
            "attack",
            "status",
            "per image",
            "before",
            "seconds",
            box=box.SIMPLE,
            title_justify="left",
            title=Text(title, "table.title"),
        )
        for row in cells:
            before = _passes(row["prepared_forwards"], row["prepared_backwards"])
            attack = Text(shown(row["cell"].partition(" | ")[2], "terminal"))
            table.add_row(
                attack, row["status"], _passes(row["forwards"], row["backwards"]), before, f"{row['seconds']:,.0f}"
            )
        console.print(table)
    console.print("Passes are forward + backward: per image, and in all before the first image is attacked.")
    waiting = sum(row["status"] == "must train" for row in rows)
    left = sum(row["status"] != "done" for row in rows)
    console.print(
        f"{left} of {len(rows)} cells to do, about {sum(row['seconds'] for row in rows):.0f} s if no image falls early"
        + (f"; models of {waiting} cells must be trained first, which comes on top" if waiting else "")
    )


def _passes(forwards: float, backwards: float) -> str:
    return f"{forwards:,.0f} + {backwards:,.0f}" if forwards or backwards else ""


def _audit(options: argparse.Namespace) -> int:
    from robustbench_local.cli import audit as command

    card, code = command.run(options.model, options.overrides)
    card.show()
    return code


def _metrics(options: argparse.Namespace) -> int:
    from robustbench_local.report import sheets
    from robustbench_local.report.metrics import write_metrics

    found = write_metrics(options.folder, options.groups, options.folds, confusion=options.confusion)
    sheets.show(found)
    _say(f"the same in {options.folder / 'metrics.md'} and metrics.json")
    return OK


def _list(options: argparse.Namespace) -> int:
    from robustbench_local.cli.listings import LISTS

    for item in LISTS[options.what]():
        print(_wrap(f"{item.name}  {item.about}", ""))
        for key, value in item.facts.items():
            if value:
                print(_wrap(f"{key}: {value}", "    "))
    return OK


def _say(text: object) -> None:
    """A line on standard output, in which names and paths are only shown."""
    print(shown(text, "terminal"))


def _wrap(text: str, indent: str) -> str:
    return textwrap.fill(
        shown(text, "terminal"),
        shutil.get_terminal_size().columns,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _fetch(options: argparse.Namespace) -> int:
    from robustbench_local.data.cache import fetch

    for path in fetch(options.names, folder=options.folder):
        _say(path)
    return OK


def _train(options: argparse.Namespace) -> int:
    from robustbench_local.core.progress import Terminal
    from robustbench_local.training.zoo_builder import make

    name, overrides = _named(options, "zoo")
    with Terminal() as progress:
        path, figures = make(name, overrides, progress)
    _say(path)
    for key, value in figures.items():
        print("  " + shown(f"{key}: {value}", "terminal"))
    return OK
