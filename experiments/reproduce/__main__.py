"""python -m experiments.reproduce NAME key=value ...: published figures beside ours. NAME may be all or list.

    python -m experiments.reproduce list
    python -m experiments.reproduce trades_mnist weights=PATH
    python -m experiments.reproduce madry_mnist n=1000
    python -m experiments.reproduce all

Keys are those of a grid (see python -m experiments.run --help). Rows and the page go to
results/reproductions/NAME/; the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.reproduce.compare import Compared, compare
from experiments.reproduce.published import Reproduction, find, reproductions
from robustbench_local.conf import reading
from robustbench_local.errors import ConfigError, RobustBenchError
from robustbench_local.files import whole_file
from robustbench_local.grid import run_grid
from robustbench_local.progress import Report, Terminal

RESULTS = Path("results/reproductions")
HEADS = ("figure, %", "published", "certainty", "here", "images", "difference", "95 % interval", "verdict")


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    name, *texts = arguments
    try:
        overrides = reading.parse(texts)
        if name == "list":
            for item in reproductions().values():
                print(f"{item.name}  {item.title}. {item.source}")
            return 0
        chosen = list(reproductions().values()) if name == "all" else [find(name)]
        lacking = {item.name: needs for item in chosen if (needs := _lacking(item, overrides))}
        if lacking and name != "all":
            raise ConfigError(lacking[name])
        for item in chosen:
            if item.name in lacking:
                print(f"{item.name} left out: {lacking[item.name]}")
                continue
            with Terminal() as report:
                compared = reproduce(item, overrides, report)
            show(item, compared)
    except RobustBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what is finished is kept, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def reproduce(
    item: Reproduction, overrides: Mapping[str, Any], report: Report, folder: Path = RESULTS
) -> list[Compared]:
    """Run the reproduction's grid and write published.json and published.md beside its rows."""
    rows = run_grid(str(item.grid), report=report, **{"results": str(folder), **overrides})
    compared = [compare(figure, rows) for figure in item.figures]
    place = Path(str(overrides.get("results", folder))).expanduser() / item.name
    kept = [asdict(each) | {"difference": each.difference, "verdict": each.verdict} for each in compared]
    for name, text in (("published.json", json.dumps(kept, indent=1) + "\n"), ("published.md", page(item, compared))):
        with whole_file(place / name) as file:
            file.write(text.encode())
    return compared


def _lacking(item: Reproduction, overrides: Mapping[str, Any]) -> str:
    return "; ".join(f"{item.name} needs {key}=PATH: {how}" for key, how in item.needs.items() if key not in overrides)


def cells(compared: Compared) -> list[str]:
    figure, low_high = compared.figure, compared.interval
    return [
        f"{figure.what} ({figure.figure})",
        "not available" if figure.value is None else f"{figure.value:.2f}",
        compared.origin,
        "–" if compared.here is None else f"{compared.here:.2f}",
        str(compared.n),
        "–" if compared.difference is None else f"{compared.difference:+.2f}",
        "–" if low_high is None else f"{low_high[0]:+.1f} to {low_high[1]:+.1f}",
        compared.verdict,
    ]


def page(item: Reproduction, compared: Sequence[Compared]) -> str:
    lines = [f"# {item.title}", "", f"Source: {item.source}.", "", item.note, ""]
    lines += [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [f"| {' | '.join(cells(each))} |" for each in compared]
    lines += [
        "",
        f"Made by `python -m experiments.reproduce {item.name}`. The interval is of the difference, for the luck of",
        "sampling images; where the source does not say how many it took, its figure is taken as exact.",
    ]
    return "\n".join(lines) + "\n"


def show(item: Reproduction, compared: Sequence[Compared]) -> None:
    table = Table(*HEADS, title=f"{item.title}. {item.source}")
    for each in compared:
        table.add_row(*cells(each))
    console = Console()
    console.print(table)
    console.print(item.note, style="dim")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
