"""The leaderboard: tables -> one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from robustbench_local.plugins import DEFENSES, listing
from robustbench_local.report import words
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.detail import Detail, Flag, detail, flags_of
from robustbench_local.report.plots import Picture
from robustbench_local.report.results import Results
from robustbench_local.report.table import Line, Rate, Table, done
from robustbench_local.report.text import FLAGS, percent, visible

_UNKNOWN = "other"


@dataclass(frozen=True)
class Entry:
    """One model of a board: its name is what sets it apart there.

    id is the same as long as table, model and defense are: links name it.
    """

    id: str
    place: int
    rank: str
    name: str
    of: str
    clean: Rate | None
    robust: Rate | None
    lower: tuple[Rate | None, ...]
    missing: list[str]
    strongest: str
    families: list[str]
    flags: list[Flag]
    searched: str
    detail: Detail


@dataclass(frozen=True)
class Board:
    """A table as a section of the page. lower: other worst cases, by name: of attackers who see
    less, of the union over norms.
    """

    table: Table
    within: str
    answer: str
    lower: list[str]
    lines: list[Entry]
    attacks: list[dict[str, str]]
    pictures: list[dict[str, Any]]


def page(
    tables: Sequence[Table], results: Results, pictures: Sequence[Picture], title: str,
    corruptions: Sequence[tuple[CorruptionTable, Picture | None]] = (),
) -> str:  # fmt: skip
    """The whole file. pictures: plots, each shown with the tables it names; corruptions come with their own."""
    boards = [_board(table, results, pictures) for table in tables]
    entries = [entry for board in boards for entry in board.lines]
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment().get_template("page.html.j2").render(
        title=visible(title), boards=boards, count=len(entries), script=script, policy=policy(f"'sha256-{digest}'"),
        glossary=[(name.replace("_", " "), why) for name, why in FLAGS.items()],
        natures=[
            {"table": table, "picture": picture and _shown(picture), "lines": list(map(_weathered, table.lines))}
            for table, picture in corruptions
        ],
        filters=[
            ("data", "Data", sorted({board.table.data for board in boards})),
            ("threat", "Threat", sorted({board.table.threat for board in boards})),
            ("family", "Defense", sorted({family for entry in entries for family in entry.families})),
            ("flag", "Flag", sorted({flag.name for entry in entries for flag in entry.flags})),
        ],
    )  # fmt: skip


def environment() -> jinja2.Environment:
    """Templates in which every value is escaped, and a name that is not there is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("robustbench_local.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def policy(script: str) -> str:
    """What a browser lets the page do: no request at all, and no script but the one named."""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script}; base-uri 'none'"


def _asset(name: str) -> str:
    return (resources.files("robustbench_local.report") / "templates" / name).read_text(encoding="utf-8")


def _board(table: Table, results: Results, pictures: Sequence[Picture]) -> Board:
    defended = len({str(line.defense) for line in table.lines}) > 1
    entries = [_entry(line, place, defended, table, results) for place, line in enumerate(table.lines, 1)]
    lower = [f"{name.removeprefix('worst case, ')} only" for name in table.worst[:-1]]
    return Board(
        table, words.within(table.threat), words.answer(table), [*lower, *table.union], entries, list(_attacks(table)),
        [_shown(picture) for picture in pictures if any(shown is table for shown in picture.tables)],
    )  # fmt: skip


def _entry(line: Line, place: int, defended: bool, table: Table, results: Results) -> Entry:
    cells = list(zip(table.attacks, line.rows, strict=True))
    good = [(str(label), row["results"]["robust_accuracy"]) for label, row in cells if done(row)]
    flags = flags_of(line.rows)
    defense = words.defense(line)
    name, of = (defense, line.model) if defended else (line.model, defense)
    terms = [line.model, defense, str(line.defense), table.title, *(f"{attack}" for attack in table.attacks)]
    terms += [flag.label for flag in flags]
    terms += [f"{key}={value}" for row in line.rows[:1] if row for key, value in _settings(row, "defense").items()]
    return Entry(
        id=hashlib.sha256(json.dumps([table.title, line.model, str(line.defense)]).encode()).hexdigest()[:10],
        place=place, rank=str(line.rank).replace('-', '–') if line.rank else '', name=name, of=of,
        clean=line.clean, robust=line.worst[-1], lower=(*line.worst[:-1], *line.union),
        missing=[str(label) for label, row in cells if not done(row)],
        strongest=min(good, key=lambda found: found[1])[0] if good else "",
        families=sorted({_families().get(part, _UNKNOWN) for part in line.defense.name.split(" + ")}),
        flags=flags, searched=visible(" ".join(terms).lower()), detail=detail(line, table, results),
    )  # fmt: skip


def _attacks(table: Table) -> Iterator[dict[str, str]]:
    for place, label in enumerate(table.attacks):
        row = next(row for line in table.lines if (row := line.rows[place]) is not None)
        settings = ", ".join(f"{key}={value}" for key, value in _settings(row, "attack").items())
        yield {"label": str(label), "access": visible(row["definition"]["access"]), "settings": visible(settings)}


def _settings(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return dict(row["definition"][f"{kind}_settings"])


@functools.cache
def _families() -> dict[str, str]:
    """{defense: family} of the plug-ins that are installed here."""
    return {plugin.name: plugin.family or _UNKNOWN for plugin in listing(DEFENSES)}


def _weathered(line: CorruptionLine) -> dict[str, Any]:
    """A model's line under corruptions, the worst of them by name."""
    worst = line.worst
    return {
        "model": visible(line.model), "defense": str(line.defense), "clean": line.clean, "mean": line.accuracy(),
        "worst": f"{visible(worst[0])}, {percent(1 - worst[1])}" if worst else "",
    }  # fmt: skip


def _shown(picture: Picture) -> dict[str, Any]:
    uri = f"data:image/svg+xml;base64,{base64.b64encode(picture.svg.encode()).decode()}"
    return {"uri": uri, "alt": picture.alt, "caption": picture.caption, "wide": picture.wide}
