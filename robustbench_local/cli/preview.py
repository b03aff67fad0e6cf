"""What a dry run shows: the cells below their models, and what all of them take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from robustbench_local.core import tables
from robustbench_local.core.escaping import shown
from robustbench_local.core.tables import Column

UNKNOWN = "unknown"  # of an attack that does not say its cost


def show_preview(rows: Sequence[Mapping[str, Any]]) -> None:
    """The cells of a dry run below their models, and what all of them take."""
    console = tables.console()
    for model, group in groupby(rows, key=lambda row: str(row["cell"]).partition(" | ")[0]):
        cells = list(group)
        console.print(Text(shown(f"{model}: {_total(cells)}", "terminal"), "italic"))
        console.print(tables.table(_columns(cells), console.width)[0])
    console.print(
        "Passes are forward + backward: per image that does not fall, and in all before the first image is attacked."
        " Seconds are of one CPU core, whatever else runs, or of an accelerator."
    )
    waiting = sum(row["status"] == "must train" for row in rows)
    left = sum(row["status"] not in ("done", "left out") for row in rows)
    console.print(
        f"{left} of {len(rows)} cells to do, {_total(rows)}"
        + (f"; models of {waiting} cells must be trained first, which comes on top" if waiting else "")
    )


def _columns(cells: Sequence[Mapping[str, Any]]) -> list[Column]:
    before = [_passes(row["prepared_forwards"], row["prepared_backwards"]) for row in cells]
    return [
        Column("attack", [shown(row["cell"].partition(" | ")[2], "terminal") for row in cells]),
        Column("status", [row["status"] for row in cells], figures=True),
        Column("per image", [_passes(row["forwards"], row["backwards"]) for row in cells], figures=True, last=2),
        Column("before", before, figures=True, last=3),
        Column("seconds", [_seconds(row["seconds"]) for row in cells], figures=True, last=1),
    ]


def _total(rows: Sequence[Mapping[str, Any]]) -> str:
    """ "about 40 s, 5 s of them for audits"."""
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    audit = sum(row["audit"] for row in rows)
    text = f"about {sum(known) + audit:,.0f} s" + (f", {audit:,.0f} s of them for audits" if audit else "")
    if missing := len(rows) - len(known):
        text += f", and {missing} {'cell' if missing == 1 else 'cells'} that nobody can tell of"
    return text


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:,.0f}"


def _passes(forwards: float | None, backwards: float | None) -> str:
    if forwards is None or backwards is None:
        return UNKNOWN
    return f"{forwards:,.0f} + {backwards:,.0f}" if forwards or backwards else ""
