"""Data frames with a title and a word of explanation, as Markdown, as JSON, or in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from robustbench_local.core import tables
from robustbench_local.core.escaping import shown
from robustbench_local.core.tables import Column
from robustbench_local.report.markdown import markdown_table
from robustbench_local.report.text import DASH

_STAY = ("data", "threat", "model", "attack", "robust", "worst case", "difference")  # columns, where they are there


@dataclass(frozen=True)
class Sheet:
    """note: what a reader must know of the figures. Shares and probabilities are in [0, 1]."""

    title: str
    note: str
    frame: pd.DataFrame


def markdown(sheets: Iterable[Sheet]) -> str:
    """A heading, the note and a table each; an interval follows its figure."""
    parts = []
    for sheet in sheets:
        heads, numeric, rows = _condensed(sheet.frame)
        first, *cells = [[shown(text, "markdown") for text in row] for row in [heads, *rows]]
        parts += [f"## {shown(sheet.title, 'markdown')}", sheet.note, markdown_table(first, cells, numeric)]
    return "\n\n".join(parts) + "\n"


def json_text(sheets: Iterable[Sheet]) -> str:
    """A list of {title, note, rows}; what is not known is null."""
    found = [
        {
            "title": sheet.title,
            "note": sheet.note,
            "rows": [dict(zip(sheet.frame.columns, map(_known, row), strict=True)) for row in _rows(sheet.frame)],
        }
        for sheet in sheets
    ]
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def show(sheets: Iterable[Sheet], console: Console | None = None) -> None:
    """Print to standard output; an interval is below its figure. Columns that there is no room for are named."""
    console = console or tables.console()
    for sheet in sheets:
        heads, numeric, rows = _condensed(sheet.frame)
        texts = [
            [shown(text, "terminal").replace(" (", "\n(").replace(" / ", "\n") for text in column]
            for column in zip(*rows, strict=True)
        ]
        columns = [
            Column(shown(head.replace("_", " "), "terminal"), cells, figures, 0 if head in _STAY else place + 1)
            for place, (head, cells, figures) in enumerate(
                zip(heads, texts or [[] for _ in heads], numeric, strict=True)
            )
        ]
        grid, left_out = tables.table(columns, console.width)
        console.print(Text(shown(sheet.title, "terminal"), style="bold"))
        console.print(grid)
        note = [sheet.note, *([f"No room for: {', '.join(left_out)}; metrics.md has all."] if left_out else [])]
        console.print(Text("\n".join(note) + "\n", style="dim"))


def _condensed(frame: pd.DataFrame) -> tuple[list[str], list[bool], list[list[str]]]:
    """(headings, which hold numbers, rows of texts), "x low" and "x high" within the column "x"."""
    names = [str(name) for name in frame.columns]
    columns = {name: [_text(value) for value in column] for name, column in zip(names, _columns(frame), strict=True)}
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name].infer_objects()) for name in names}
    for name in names:
        low, high = columns.pop(f"{name} low", None), columns.pop(f"{name} high", None)
        if low and high:
            whole = zip(columns[name], low, high, strict=True)
            columns[name] = [value if value == DASH else f"{value} ({start}-{end})" for value, start, end in whole]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return list(columns), [numeric[name] for name in columns], rows


def _columns(frame: pd.DataFrame) -> list[list[Any]]:
    return [frame[name].astype(object).tolist() for name in frame.columns]


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, ...]]:
    return zip(*_columns(frame), strict=True)


def _known(value: Any) -> Any:
    """The value, None where it is no number, as a frame has it where a record lacks a key."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if _known(value) is None:
        return DASH
    if isinstance(value, float):  # counts become fractions where one of them is missing
        return str(int(value)) if value.is_integer() else f"{value:.3g}"
    return str(value)
