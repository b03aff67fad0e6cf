"""`robustbench-local evaluate my_models.py:net --data cifar10 --threat linf:8/255`: one model, without a grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_local.cli.output import OK, say
from robustbench_local.cli.overrides import name_and_overrides
from robustbench_local.cli.parsing import Commands
from robustbench_local.core.bound_methods import METHODS
from robustbench_local.core.errors import ConfigError

if TYPE_CHECKING:
    from robustbench_local.report.results import Results

SUITES = ("quick", "standard", "full")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="the number of one model: evaluate my_models.py:net --data cifar10 --threat linf:8/255",
        description="Attack one model, audit the attacks, and end with one line: what is right, what is left under"
        " attack, and where the page is. Run again, it resumes. `list models` says what a model may be.",
        epilog="key=value: any key of a grid (see run --help), such as normalise=cifar10 or weights=net.safetensors",
    )
    parser.add_argument("model", help="my_models.py:net, net.onnx, net.pt, timm:NAME, zoo:cifar10/none and so on")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--data", help="cifar10, mnist, folder:PATH, arrays:PATH, parquet:PATH or hf:PATH")
    parser.add_argument("--threat", action="append", help="linf:8/255, l2:0.5, l1:12; repeatable; the usual one")
    parser.add_argument("--suite", choices=SUITES, metavar="NAME", help="quick, standard (the usual one) or full")
    parser.add_argument(
        "--certify", choices=METHODS, metavar="METHOD", help=f"also what no attack can break: {', '.join(METHODS)}"
    )
    parser.add_argument("--n", type=int, help="images; by default 100 (quick), 500 (standard) or 1000 (full)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of rows and page; by default results/NAME")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    from robustbench_local.cli.preview import show_preview
    from robustbench_local.cli.run import contradictions, failures
    from robustbench_local.core.progress import Terminal
    from robustbench_local.grids.default_grid import default_values
    from robustbench_local.grids.grid import Grid
    from robustbench_local.grids.plan import config_of
    from robustbench_local.grids.preview import preview
    from robustbench_local.grids.run import run as run_all
    from robustbench_local.report.corruption_text import show_corruptions
    from robustbench_local.report.results import Results

    name, values = default_values(_asked(options))
    if options.out is not None:
        name, values["results"] = options.out.name, str(options.out.parent)
    with Terminal() as progress:
        grid = Grid.of(config_of(values, "evaluate"), name, progress)
        rows = preview(grid) if grid.config.dry_run else run_all(grid)
    if grid.config.dry_run:
        show_preview(rows)
        return OK
    results = Results.of(rows, grid.store)
    show_corruptions(results.rows, results.robust_shares, grid.config.baseline)
    for table in results.tables():
        for note in table.notes:
            say(note)
    code = max(failures(rows), contradictions(results))
    say(f"{answer(results)}   report: {grid.store.folder / 'index.html'}")
    return code


def answer(results: Results) -> str:
    """What a model is worth, in one line: "clean 91.2 %   robust at most 34.0 % (29.9-38.4)   certified -", or, where
    anything is certified, "clean 100.0 %   certified 93.0 %, robust at most 99.0 % (94.6-99.8)".
    """
    from robustbench_local.report.certified import in_percent
    from robustbench_local.report.text import interval, percent

    tables = results.tables()
    cleans = [line.clean for table in tables for line in table.lines if line.clean is not None]
    words = [f"clean {percent(cleans[0].value)} %" if cleans else "clean -"]
    for table in tables:
        line = table.lines[0]
        worst = line.worst[-1]
        found = "-" if worst is None else f"at most {percent(worst.value)} % ({interval(worst.low, worst.high)})"
        known = line.certified if line.certified is not None and line.certified.rate is not None else None
        least = f"certified {in_percent(known)} %, " if known else ""
        words.append(f"{least}robust {found}{f' within {table.threat}' if len(tables) > 1 else ''}")
    asked = [table.lines[0].certified for table in tables]
    return "   ".join(words if any(each and each.rate for each in asked) else [*words, "certified -"])


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The keys of a grid that the flags and overrides say."""
    word, values = name_and_overrides(options.overrides, "grid")
    if word is not None or "models" in values:
        second = word or values["models"]
        raise ConfigError(f"{second}: evaluate takes one model, and then key=value. For several: robustbench-local run")
    flags = {"models": [options.model], "data": options.data, "threats": options.threat}
    flags |= {"suite": options.suite, "n": options.n, "certify": options.certify}
    return values | {key: value for key, value in flags.items() if value is not None}
