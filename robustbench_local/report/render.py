"""Tables as text: for a terminal, as Markdown, as CSV with one line per cell."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from rich.console import Console
from rich.text import Text

from robustbench_local.core import tables as terminal
from robustbench_local.core.escaping import shown
from robustbench_local.core.resubmission import NAME
from robustbench_local.core.tables import Column
from robustbench_local.metrics.rates import Rate
from robustbench_local.report.certified import Certified, in_percent
from robustbench_local.report.labels import Label
from robustbench_local.report.markdown import markdown_table
from robustbench_local.report.text import DASH, interval, percent

if TYPE_CHECKING:
    from robustbench_local.metrics.paired import Rank
    from robustbench_local.report.table import Line, Table
    from robustbench_local.storage.row import Row

Shown: TypeAlias = Union[Rate, Certified, "Rank", None]  # a figure of a table
_LINES, _ATTACKS = 100, 40  # of a table, that are read in a terminal; the files have all
CAPTION = (
    "Accuracy in % with its 95 % interval. Robust accuracy is an upper bound: a stronger attack may break more images."
    " Worst case: per image, over these attacks."
)
RANKS = "Rank: from - to, where these images cannot tell models apart (paired tests, 5 % for all together)."
UNRANKED = "No rank, and last: what the audit calls broken, as the notes say."
EMPTY = f"{DASH}: failed or not run, and then no worst case."
NAIVE = (
    "Naive: crafted on the part without its defense, judged on the whole; no part of the worst case, and a dash where"
    " nothing could be left out."
)
CERTIFIED = f"Certified: what no attack can break, {DASH} where nothing is known; with an asterisk with a probability."
RANDOM = "Models that draw random numbers: mean over fresh draws."
RESUBMITTED = (
    f"{NAME.capitalize()}: how probable it is that so many fresh draws are all right, as an attacker meets it who hands"
    " in the same image again; a dash where fewer were drawn."
)

_COLUMNS = (
    "data",
    "split",
    "images",
    "threat",
    "targets",
    "model",
    "defense",
    "attack",
    "access",
    "seed",
    "count",
    "precision",
    "status",
    "clean",
    "clean_low",
    "clean_high",
    "robust",
    "robust_low",
    "robust_high",
    "robust_8bit",
    "forwards_mean",
    "backwards_mean",
    "distance_median",
    "seconds",
    "flags",
    "error",
    "key",
)
_CERTIFIED = ("certified", "certified_low", "certified_high")  # of tables that have any


def show(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print to standard output. Attacks of one name are numbered, and what tells them apart is listed below.

    What is wider than the terminal goes on in another block of columns. Of a hundred models and forty attacks those
    after them are counted: table.md has them.
    """
    console = console or terminal.console()
    for table, left_out in map(_readable, tables):
        attacks, keys = _numbered(table.attacks)
        console.print(Text(table.title, style="bold"))
        for block in _blocks(table, attacks, console.width):
            console.print(terminal.table(block, console.width)[0], Text())
        for note in [*left_out, *keys, *legend(table), *table.notes]:
            console.print(Text(note, style="dim"))
        console.print()


def brief(table: Table, room: int) -> str:
    """The figures alone, as plain text of so many characters, for a grid that is still running."""
    blocks = _blocks(table, _numbered(table.attacks)[0], room)
    return "\n".join([table.title, *(terminal.lines_of(terminal.table(block, room)[0], room) for block in blocks)])


def _blocks(table: Table, attacks: Sequence[str], room: int) -> Iterator[list[Column]]:
    """The columns in as many blocks as they need, each of which begins with the names."""
    heads = ["clean", *attacks, *(name.replace(", ", "\n").replace(" ", "\n") for name in last(table))]
    cells = zip(*(map(_two_lines, rates(line, table)) for line in table.lines), strict=True)
    names = Column("model\ndefense", [f"{line.model}\n{line.defense}" for line in table.lines])
    figures = [Column(head, each, figures=True, last=1) for head, each in zip(heads, cells, strict=True)]
    names_room = min(names.widest, room // 2)
    while figures:
        fits = terminal.fitting(figures, room - names_room - 2)[0] or figures[:1]
        yield [names, *(replace(each, last=0) for each in fits)]
        figures = figures[len(fits) :]


def _readable(table: Table) -> tuple[Table, list[str]]:
    """The first lines and attacks of a table, with their notes, and what was left out, in words."""
    more = len(table.lines) - _LINES, len(table.attacks) - _ATTACKS, len(table.notes) - _LINES
    said = [f"{count:,} {what}" for count, what in zip(more, ("models", "attacks", "notes"), strict=True) if count > 0]
    lines = tuple(replace(line, rows=line.rows[:_ATTACKS]) for line in table.lines[:_LINES])
    shorter = replace(table, lines=lines, attacks=table.attacks[:_ATTACKS], notes=table.notes[:_LINES])
    return (shorter, [f"Not shown: {', '.join(said)}. table.md and table.csv have all."]) if said else (table, [])


def markdown(tables: Sequence[Table]) -> str:
    """A heading and a table each; cells read "45.2 (42.1-48.3)"."""
    parts = []
    for table in tables:
        heads = ["model", "defense", "clean", *map(str, table.attacks), *last(table)]
        rows = [[line.model, str(line.defense), *map(one_line, rates(line, table))] for line in table.lines]
        first, *cells = [[shown(cell, "markdown") for cell in row] for row in [heads, *rows]]
        body = markdown_table(first, cells, [place > 1 for place in range(len(heads))])
        notes = "\n".join(f"- {shown(note, 'markdown')}" for note in table.notes)
        parts += [f"## {shown(table.title, 'markdown')}", body, " ".join(legend(table)), *([notes] if notes else [])]
    return "\n\n".join(parts) + "\n"


def csv_text(tables: Iterable[Table]) -> str:
    """One line per cell, worst cases among them; accuracies in [0, 1], empty where there is none. Where anything was
    certified, each says the certified share of its model, too.
    """
    text, tables = io.StringIO(), list(tables)
    columns = [*_COLUMNS, *_CERTIFIED] if any(table.certifies for table in tables) else _COLUMNS
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        attacks = [shown(attack, "csv") for attack in table.attacks]
        for line in table.lines:
            where = plain_texts(
                {
                    "data": table.data,
                    "split": table.split,
                    "images": table.images,
                    "threat": table.threat,
                    "targets": table.targets,
                    "model": line.model,
                    "defense": line.defense,
                    **_three("clean", line.clean),
                    **_three("certified", line.certified.rate if line.certified else None),
                }
            )
            for attack, row, robust in zip(attacks, line.rows, line.robust, strict=True):
                writer.writerow(where | {"attack": attack} | _three("robust", robust) | plain_texts(_of_row(row)))
            for name, robust in zip((*table.worst, *table.beside), (*line.worst, *line.beside), strict=True):
                status = {"status": "ok" if robust else "missing"}
                flags = [f"not audited: {line.unaudited}"] if line.unaudited else []
                status |= {"flags": "; ".join([*flags, *(f"audit: {fault.check}" for fault in line.faults)])}
                writer.writerow(where | plain_texts({"attack": name} | _three("robust", robust) | status))
    return text.getvalue()


def plain_texts(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a CSV file, its texts as a spreadsheet shows and does not compute them."""
    return record | {key: shown(value, "csv") for key, value in record.items() if isinstance(value, str | Label)}


def _of_row(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"status": "missing"}
    about = {key: row.said(key) for key in ("access", "seed", "count", "precision")}
    about |= {"status": row["status"], "key": row.key}
    if not row.ok:
        return about | {"error": row.failure}
    results = row.results
    costs = {key: results[key] for key in ("forwards_mean", "backwards_mean", "distance_median", "seconds")}
    return about | costs | {"robust_8bit": results["robust_accuracy_8bit"], "flags": " ".join(results["flags"])}


def _three(name: str, rate: Rate | None) -> dict[str, float]:
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high} if rate else {}


def last(table: Table) -> list[str]:
    """The headings after the attacks'."""
    return [*table.worst, *["certified"] * table.certifies, *["rank"] * _is_ranked(table), *table.beside]


def rates(line: Line, table: Table) -> list[Shown]:
    """A line's figures in the order of the columns."""
    certified = [line.certified] * table.certifies
    return [line.clean, *line.robust, *line.worst, *certified, *[line.rank] * _is_ranked(table), *line.beside]


def _is_ranked(table: Table) -> bool:
    return sum(line.rank is not None for line in table.lines) > 1


def _numbered(attacks: Sequence[Label]) -> tuple[list[str], list[str]]:
    """Short headings, "pgd 1", and the key to those that have details, "pgd 1: steps=40, loss=ce"."""
    namesakes, before = Counter(label.name for label in attacks), Counter[str]()
    short = []
    for label in attacks:
        before[label.name] += 1
        short.append(f"{label.name} {before[label.name]}" if namesakes[label.name] > 1 else label.name)
    return short, [
        f"{name}: {', '.join(label.details)}" for name, label in zip(short, attacks, strict=True) if label.details
    ]


def legend(table: Table) -> list[str]:
    """What a reader must know of the figures."""
    ranked, naive = _is_ranked(table), any(attack.naive for attack in table.attacks)
    broken = ranked and any(line.broken for line in table.lines)
    empty = any(rate is None for line in table.lines for rate in (line.clean, *line.robust, *line.worst, *line.union))
    return [
        CAPTION,
        *[RANKS] * ranked,
        *[UNRANKED] * broken,
        *[CERTIFIED] * table.certifies,
        *[NAIVE] * naive,
        *[RANDOM] * table.stochastic,
        *[RESUBMITTED] * bool(table.resubmitted),
        *[EMPTY] * empty,
    ]


def _two_lines(shown: Shown) -> Text:
    value, between = _words(shown)
    return Text.assemble(value, "\n", (between, "dim")) if between else Text(value)


def one_line(shown: Shown) -> str:
    """ "45.2 (42.1-48.3)", or a dash."""
    value, between = _words(shown)
    return f"{value} ({between})" if between else value


def _words(shown: Shown) -> tuple[str, str]:
    """A figure and its interval, "" where it has none."""
    rate = shown.rate if isinstance(shown, Certified) else shown
    if not isinstance(rate, Rate):
        return str(rate) if rate else DASH, ""
    value = in_percent(shown) if isinstance(shown, Certified) else percent(rate.value)
    return value, interval(rate.low, rate.high)
