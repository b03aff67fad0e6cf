"""What a dry run shows: the cells below their models, and what all of them take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_local.core.escaping import shown


def show_preview(rows: Sequence[Mapping[str, Any]]) -> None:
    """The cells of a dry run below their models, and what all of them take."""
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
    left = sum(row["status"] not in ("done", "left out") for row in rows)
    console.print(
        f"{left} of {len(rows)} cells to do, about {sum(row['seconds'] for row in rows):.0f} s if no image falls early"
        + (f"; models of {waiting} cells must be trained first, which comes on top" if waiting else "")
    )


def _passes(forwards: float, backwards: float) -> str:
    return f"{forwards:,.0f} + {backwards:,.0f}" if forwards or backwards else ""
