"""The leaderboard: tables -> one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from robustbench_local.core.escaping import shown, visible
from robustbench_local.report import words
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.detail import Detail, Flag, detail, flags_of
from robustbench_local.report.labels import Label
from robustbench_local.report.picture import Picture
from robustbench_local.report.results import Results
from robustbench_local.report.svg import data_uri
from robustbench_local.report.table import Line, Rate, Table
from robustbench_local.report.text import FLAGS, percent
from robustbench_local.storage.row import Row, done

if TYPE_CHECKING:
    import jinja2

_OTHER = "other"  # the family of a defense that names none
_INLINE, _FIRST = 300, 10  # models that stand on a page as they are; of more, so many of each board at least
_GLANCE = 12  # boards, beyond which an overview would be as long as what it sums up


@dataclass(frozen=True)
class Entry:
    """One model of a board: its name is what sets it apart there, of the rest, where that differs.

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
    why_missing: str  # in a word or two, of all of them
    strongest: Label | None
    families: list[str]
    flags: list[Flag]
    searched: str
    detail: Detail

    @property
    def data(self) -> dict[str, str]:
        """What the page sorts and searches by: attributes of its row."""
        figures = {
            "rank": self.place if self.rank else None,
            "clean": _value(self.clean),
            "robust": _value(self.robust),
        }
        figures |= {"cautions": self.detail.cautions}
        figures |= {f"level{place}": _value(rate) for place, rate in enumerate(self.lower, 1)}
        known = {name: "" if figure is None else str(figure) for name, figure in figures.items()}
        families, flags = "|".join(self.families), "|".join(flag.name for flag in self.flags)
        found = {"id": self.id, "name": self.name, **known, "families": families, "flags": flags}
        return {name: visible(text) for name, text in found.items()} | {"words": self.searched}


@dataclass(frozen=True)
class Board:
    """A table as a section of the page. lower: other worst cases, by name: of attackers who see
    less, of the union over norms. shared: the model, or the defense, of all lines, if it is one. first: the lines that
    stand on the page; rest: the others, packed, "" where there are none.
    """

    table: Table
    within: str
    answer: str
    shared: str
    lower: list[str]
    lines: list[Entry]
    attacks: list[dict[str, str]]
    pictures: list[dict[str, Any]]
    first: list[Entry]
    rest: str = ""

    @property
    def name(self) -> str:
        return f"{words.data_name(self.table.data)}, {self.within}{', random models' if self.table.stochastic else ''}"

    @property
    def best(self) -> str:
        bare = self.table.lines[0].defense.name == "none"
        return self.lines[0].name if len(self.lines) > 1 or bare else words.defense(self.table.lines[0])

    @property
    def broken(self) -> bool:
        """Whether no figure is to be believed: those that are come first."""
        return self.table.lines[0].broken

    @property
    def undefended(self) -> Rate | None:
        """The robust accuracy to compare with: of the best model without a defense."""
        bare = (line.worst[-1] for line in self.table.lines if line.defense.name == "none")
        return next((rate for rate in bare if rate), None)


def page(
    tables: Sequence[Table],
    results: Results,
    pictures: Sequence[Picture],
    title: str,
    corruptions: Sequence[tuple[CorruptionTable, Sequence[Picture]]] = (),
    gallery: bool = False,
) -> str:
    """The whole file. pictures: plots, each shown with the tables it names; corruptions come with their own. gallery:
    whether gallery.html is beside it.
    """
    boards = [_board(table, results, pictures) for table in tables]
    if sum(len(board.lines) for board in boards) > _INLINE:
        boards = [_packed(board, max(_FIRST, _INLINE // len(boards))) for board in boards]
    entries = [entry for board in boards for entry in board.lines]
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=visible(title),
            boards=boards,
            count=len(entries),
            gallery=gallery,
            glance=1 < len(boards) <= _GLANCE,
            script=script,
            policy=policy(f"'sha256-{digest}'"),
            glossary=[(name.replace("_", " "), why) for name, why in FLAGS.items()],
            natures=[
                {
                    "name": _nature(table),
                    "table": table,
                    "pictures": list(map(_shown, each)),
                    "lines": list(map(_weathered, table.lines)),
                }
                for table, each in corruptions
            ],
            filters=[
                ("data", "Data", sorted({board.table.data for board in boards})),
                ("threat", "Threat", sorted({board.table.threat for board in boards})),
                ("family", "Defense", sorted({family for entry in entries for family in entry.families})),
                ("flag", "Flag", sorted({flag.name for entry in entries for flag in entry.flags})),
            ],
        )
    )


def environment() -> jinja2.Environment:
    """Templates in which every value is as shown(value, "html"), and a name that is not there is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("robustbench_local.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
        auto_reload=False,  # a page of thousands of rows would ask each time whether a template changed
    )
    made.filters["breakable"] = lambda text: Markup(shown(text, "html").replace("_", "_<wbr>"))
    return made


def _seen(value: Any) -> Any:
    """Whatever a template writes, in characters that can be seen; autoescape then makes HTML of it."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def policy(script: str) -> str:
    """What a browser lets the page do: no request at all, and no script but the one named."""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script}; base-uri 'none'"


def _asset(name: str) -> str:
    return (resources.files("robustbench_local.report") / "templates" / name).read_text(encoding="utf-8")


def _board(table: Table, results: Results, pictures: Sequence[Picture]) -> Board:
    defended = len({str(line.defense) for line in table.lines}) > 1
    entries = [_entry(line, place, defended, table, results) for place, line in enumerate(table.lines, 1)]
    shared = entries[0].of if len({entry.of for entry in entries}) == 1 < len(entries) else ""
    if shared:
        entries = [replace(entry, of="") for entry in entries]
    lower = [f"{name.removeprefix('worst case, ')} only" for name in table.worst[:-1]]
    return Board(
        table,
        words.within(table.threat),
        words.answer(table),
        shared,
        [*lower, *table.union],
        entries,
        list(_attacks(table)),
        [_shown(picture) for picture in pictures if any(shown is table for shown in picture.tables)],
        entries,
    )


def _packed(board: Board, most: int) -> Board:
    """The board with `most` lines on the page and the others beside them: a list of what sorts and finds each, its row
    and what opens below it, as JSON, deflated (RFC 1950) and in base64. Rows of a table are alike: they shrink to a
    twentieth.
    """
    if len(board.lines) <= most:
        return board
    rest = board.lines[most:]
    html = environment().get_template("rest.html.j2").render(board=board, lines=rest).split("<!--|-->")
    items = [
        entry.data | {"row": row, "opened": opened}
        for entry, row, opened in zip(rest, html[::2], html[1::2], strict=False)  # what follows the last is empty
    ]
    packed = zlib.compress(json.dumps(items, ensure_ascii=False).encode(), 9)
    return replace(board, first=board.lines[:most], rest=base64.b64encode(packed).decode())


def _entry(line: Line, place: int, defended: bool, table: Table, results: Results) -> Entry:
    cells = list(zip(table.attacks, line.rows, strict=True))
    good = [(label, row.results["robust_accuracy"]) for label, row in cells if done(row) and not label.naive]
    flags = flags_of(line.rows)
    defense = words.defense(line)
    name, of = (defense, line.model) if defended else (line.model, defense)
    terms = [line.model, defense, str(line.defense), table.title, *(f"{attack}" for attack in table.attacks)]
    terms += [flag.label for flag in flags]
    terms += [
        f"{key}={value}" for row in line.rows[:1] if row for key, value in row.definition["defense_settings"].items()
    ]
    return Entry(
        id=hashlib.sha256(json.dumps([table.title, line.model, str(line.defense)]).encode()).hexdigest()[:10],
        place=place,
        rank=str(line.rank).replace("-", "–") if line.rank else "",
        name=name,
        of=of,
        clean=line.clean,
        robust=line.worst[-1],
        lower=(*line.worst[:-1], *line.union),
        missing=[str(label) for label, row in cells if not done(row)],
        why_missing=_why_missing([row for _, row in cells if not done(row)]),
        strongest=_strongest(min(good, key=lambda found: found[1])[0], line, results) if good else None,
        families=sorted({family or _OTHER for row in line.rows if row for family in row.families}),
        flags=flags,
        searched=visible(" ".join(terms).lower()),
        detail=detail(line, table, results),
    )


def _value(rate: Rate | None) -> float | None:
    return rate.value if rate else None


def _why_missing(rows: Sequence[Row | None]) -> str:
    """ "missing", or where nothing else is missing "left out: the model grants scores"."""
    left_out = [row for row in rows if row is not None and row.left_out]
    if not left_out or len(left_out) < len(rows):
        return "missing"
    return f"left out: {visible(left_out[0].why.rpartition(', and ')[2])}"


def _strongest(label: Label, line: Line, results: Results) -> Label:
    """The attack of the lowest row, and after it that of an audit which took more off the worst case."""
    keys = {row.key for row in line.rows if done(row)}
    own = (retry for audit in results.audits.of(keys) for retry in audit.retries)
    retries = (retry for retry in own if retry.broken and keys & {*retry.lowers})
    more = sorted({visible(retry.attack) for retry in retries})
    return replace(label, name=", then the audit's ".join([label.name, *more])) if more else label


def _attacks(table: Table) -> Iterator[dict[str, str]]:
    for place, label in enumerate(table.attacks):
        row = next(row for line in table.lines if (row := line.rows[place]) is not None)
        settings = ", ".join(f"{key}={value}" for key, value in row.definition["attack_settings"].items())
        yield {"label": str(label), "access": visible(row.definition["access"]), "settings": visible(settings)}


def _nature(table: CorruptionTable) -> str:
    """ "CIFAR-10-C", "MNIST, other corruptions"."""
    data = words.data_name(table.data)
    name = "other corruptions" if table.benchmark == "other" else table.benchmark
    under = f", under {table.under}" if table.under else ""
    return f"{name if name.startswith(data) else f'{data}, {name}'}{under}"


def _weathered(line: CorruptionLine) -> dict[str, Any]:
    """A model's line under corruptions, the worst of them by name."""
    worst = line.worst
    return {
        "model": visible(line.model),
        "defense": words.defense(line),
        "clean": None if line.clean is None else Rate(line.clean, line.clean, line.clean),
        "mean": line.accuracy(),
        "worst": f"{visible(worst[0])}, {percent(1 - worst[1])}" if worst else "",
    }


def _shown(picture: Picture) -> dict[str, Any]:
    return {"uri": data_uri(picture.svg), "alt": picture.alt, "caption": picture.caption, "wide": picture.wide}
