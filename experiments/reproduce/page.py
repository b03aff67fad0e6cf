"""Published figures beside ours, as a page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.reproduce.compare import Compared
from experiments.reproduce.published import Reproduction
from robustbench_local.core.escaping import shown
from robustbench_local.report.markdown import markdown_table

HEADS = ("figure, %", "published", "certainty", "here", "images", "difference", "95 % interval", "verdict")
REDUCED = "Sizes are reduced, for about an hour of two CPU cores: n=10000 takes all test images, on a GPU."
_OWN = ("results", "weights", "device", "source")  # of a user's machine: no part of what a page says it was made by


def cells(compared: Compared) -> list[str]:
    figure, low_high = compared.figure, compared.interval
    return [
        f"{figure.what} ({figure.figure.replace('_', ' ')})",
        "not available" if figure.value is None else f"{figure.value:.2f}",
        compared.origin,
        "–" if compared.here is None else f"{compared.here:.2f}",
        "–" if compared.here is None else str(compared.n),
        "–" if compared.difference is None else f"{compared.difference:+.2f}",
        "–" if low_high is None else f"{low_high[0]:+.1f} to {low_high[1]:+.1f}",
        compared.verdict,
    ]


def page(item: Reproduction, compared: Sequence[Compared], overrides: Mapping[str, Any] | None = None) -> str:
    lines = [f"# {item.title}", "", f"Source: {item.source}.", "", item.note, ""]
    lines.append(markdown_table(HEADS, map(cells, compared)))
    given = "".join(f" {key}={value}" for key, value in (overrides or {}).items() if key not in _OWN)
    lines += [
        "",
        f"Made by `python -m experiments.reproduce {item.name}{given}`.",
        "The interval is of the difference, for the luck of sampling images; where the source does not say how many it",
        "took, its figure is taken as exact.",
        REDUCED,
    ]
    return "\n".join(lines) + "\n"


def show(item: Reproduction, compared: Sequence[Compared], console: Console | None = None) -> None:
    """The same in a terminal of 80 columns: certainty below what was published, the interval below the difference."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("figure, %", "published", "here", "images", "difference", "verdict"):
        table.add_column(head, justify="left" if head in ("figure, %", "verdict") else "right")
    for each in compared:
        figure, published, certainty, here, images, difference, interval, verdict = map(escape, cells(each))
        known = published if certainty in ("published", published) else f"{published}\n{certainty}"
        gap = difference if interval == "–" else f"{difference}\n{interval}"
        short = "not run" if each.missing else verdict.removesuffix(" within the luck of sampling")
        table.add_row(figure, known, here, images, gap, short)
    console.print(f"{item.title}. {item.source}", highlight=False)
    console.print(table)
    for missing in dict.fromkeys(each.missing for each in compared if each.missing):
        console.print(shown(f"Missing: {missing}", "terminal"), highlight=False, markup=False)
    console.print(item.note, REDUCED, style="dim", highlight=False)
