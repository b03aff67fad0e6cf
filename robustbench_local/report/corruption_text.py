"""Corruption tables as text: for a terminal, as Markdown, as CSV with one line per cell (the curves over severity)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rich.text import Text

from robustbench_local.core import tables
from robustbench_local.core.escaping import shown
from robustbench_local.core.tables import Column
from robustbench_local.report.corruption import (
    Correlation,
    CorruptionLine,
    CorruptionTable,
    correlations,
    corruption_tables,
)
from robustbench_local.report.markdown import markdown_table
from robustbench_local.report.render import plain_texts
from robustbench_local.report.table import SharesOf
from robustbench_local.report.text import DASH
from robustbench_local.storage.row import Row, done

CAPTION = (
    "Errors in %, on the corrupted images, whether or not the model is right on the clean ones. Mean corruption error:"
    " the plain mean over corruptions and severities, each counting the same. Worst: the corruption of largest mean"
    " error."
)
RELATIVE = (
    "Relative mCE: per corruption the error summed over severities, divided by that of {baseline}, then averaged (100:"
    " as bad as {baseline})."
)
_COLUMNS = (
    "data",
    "split",
    "images",
    "benchmark",
    "under",
    "model",
    "defense",
    "corruption",
    "severity",
    "seed",
    "status",
    "clean",
    "accuracy",
    "low",
    "high",
    "key",
)


def show_corruptions(rows: Sequence[Row], shares_of: SharesOf, baseline: str | None = None) -> None:
    """Print to standard output: a table for each published set, then how they go with robust accuracy."""
    console = tables.console()
    for table in corruption_tables(rows, baseline):
        console.print(Text(table.title, style="bold"))
        grid, left_out = tables.table(_columns(table), console.width)
        console.print(grid)
        room = [f"No room for: {', '.join(left_out)}; corruption.md has all."] if left_out else []
        for note in [*room, *_legend(table), *table.notes]:
            console.print(Text(note, style="dim"))
        console.print()
    for found in correlations(rows, shares_of):
        console.print(Text(_sentence(found)))


def corruption_files(rows: Sequence[Row], shares_of: SharesOf, baseline: str | None = None) -> dict[str, str]:
    """{name: text} of corruption.md and corruption.csv, where rows hold corruptions."""
    tables = corruption_tables(rows, baseline)
    if not tables:
        return {}
    parts = [part for table in tables for part in _markdown(table)]
    parts += [shown(" ".join(_sentence(found) for found in correlations(rows, shares_of)), "markdown")]
    return {"corruption.md": "\n\n".join(filter(None, parts)) + "\n", "corruption.csv": csv_text(tables)}


def csv_text(tables: Iterable[CorruptionTable]) -> str:
    """One line per model, corruption, severity and seed; accuracies in [0, 1], empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for line in table.lines:
            for (corruption, severity, seed), row in line.cells.items():
                about = {
                    "data": table.data,
                    "split": table.split,
                    "images": table.images,
                    "benchmark": table.benchmark,
                    "under": table.under,
                    "model": line.model,
                    "defense": line.defense,
                    "corruption": corruption,
                    "severity": severity,
                    "seed": seed,
                    "status": row["status"] if row else "missing",
                }
                if done(row):
                    results = row.results
                    low, high = results["corruption_interval"]
                    about |= {"clean": results["clean_accuracy"], "accuracy": results["corruption_accuracy"]}
                    about |= {"low": low, "high": high, "key": row.key}
                writer.writerow(plain_texts(about))
    return text.getvalue()


def _columns(table: CorruptionTable) -> list[Column]:
    """For a terminal: where there is little room, the curve over severities goes first, then the worst corruption."""
    heads = _heads(table)
    cells = zip(*(_summary(table, line) for line in table.lines), strict=True)
    return [
        Column(
            head.replace(" ", "\n") if place > 1 else head,
            [each.replace(" (", "\n(") for each in column],
            figures=place > 1,
            last=0 if place < 2 or place == 3 else 3 if head.startswith("at ") else 1,
        )
        for place, (head, column) in enumerate(zip(heads, cells, strict=True))
    ]


def _heads(table: CorruptionTable) -> list[str]:
    curve = [f"at {severity}" for severity in table.severities] if len(table.severities) > 1 else []
    relative = ["relative mCE"] if table.baseline else []
    return ["model", "defense", "clean error", "mean corruption error", *relative, *curve, "worst"]


def _summary(table: CorruptionTable, line: CorruptionLine) -> list[str]:
    rate = line.accuracy()
    mean = f"{_percent(1 - rate.value)} ({_percent(1 - rate.high)}-{_percent(1 - rate.low)})" if rate else DASH
    curve = [line.accuracy(severity=severity) for severity in table.severities] if len(table.severities) > 1 else []
    relative = [_percent(table.relative(line))] if table.baseline else []
    worst = f"{line.worst[0]} {_percent(line.worst[1])}" if line.worst else DASH
    clean = None if line.clean is None else 1 - line.clean
    errors = [_percent(None if rate is None else 1 - rate.value) for rate in curve]
    return [line.model, str(line.defense), _percent(clean), mean, *relative, *errors, worst]


def _markdown(table: CorruptionTable) -> list[str]:
    """The summary, and mean errors over severities per corruption and model."""
    names = [f"{line.model} / {line.defense}" for line in table.lines]
    each = [["corruption", *names]]
    for corruption in table.corruptions:
        rates = [line.accuracy(corruption=corruption) for line in table.lines]
        each.append([corruption, *(_percent(None if rate is None else 1 - rate.value) for rate in rates)])
    summary = [_heads(table), *(_summary(table, line) for line in table.lines)]
    notes = "\n".join(f"- {shown(note, 'markdown')}" for note in table.notes)
    title, legend = (shown(text, "markdown") for text in (table.title, " ".join(_legend(table))))
    return [f"## {title}", _grid(summary, 2), legend, _grid(each, 1), notes]


def _grid(rows: list[list[str]], names: int) -> str:
    head, *body = [[shown(cell, "markdown") for cell in row] for row in rows]
    return markdown_table(head, body, [place >= names for place in range(len(head))])


def _legend(table: CorruptionTable) -> list[str]:
    relative = [RELATIVE.format(baseline=table.baseline)] if table.baseline else []
    return [CAPTION, *relative]


def _sentence(found: Correlation) -> str:
    return (
        f"{found.data}: accuracy under {found.benchmark} corruptions and robust accuracy ({found.threat}),"
        f" over {found.n} models: Spearman {found.spearman:.2f}, Pearson {found.pearson:.2f}."
    )


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}"
