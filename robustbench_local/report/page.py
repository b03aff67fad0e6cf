"""The leaderboard: tables -> one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import chain
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from robustbench_local.core.escaping import shown, visible
from robustbench_local.report import fragments, words
from robustbench_local.report.certified import Certified
from robustbench_local.report.corruption import CorruptionTable
from robustbench_local.report.detail import Detail, Flag, detail, flags_of
from robustbench_local.report.headline import RULE, Headline, answer, headline
from robustbench_local.report.labels import Label
from robustbench_local.report.model_info import ModelInfo, of_line
from robustbench_local.report.nature import nature
from robustbench_local.report.picture import Picture
from robustbench_local.report.results import Results
from robustbench_local.report.table import DRAWS, Line, Rate, Table
from robustbench_local.report.text import FLAGS
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
    about: ModelInfo | None
    certified: Certified | None = None

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
    """A table as a section of the page. aside: what sets it apart from another table of the same threat model; why: the
    reason that it is one of its own. lower: other worst cases, by name: of attackers who see less, of the union over
    norms. shared: the model, or the defense, of all lines, if it is one. most: lines that stand on the page; the others
    are packed.
    """

    table: Table
    headline: Headline
    answer: str
    shared: str
    lower: list[str]
    lines: list[Entry]
    attacks: list[dict[str, str]]
    pictures: list[Picture]
    most: int
    aside: str = ""
    why: str = ""

    @property
    def first(self) -> list[Entry]:
        return self.lines[: self.most]

    @property
    def rest(self) -> list[Entry]:
        return self.lines[self.most :]

    @property
    def threat(self) -> str:
        """ "MNIST, L2 ball of radius 2": which other tables may have too."""
        under = f", under {self.table.under}" if self.table.under else ""
        draws = f", {DRAWS}" if self.table.stochastic else ""
        return f"{words.data_name(self.table.data)}, {words.within(self.table.threat)}{under}{draws}"

    @property
    def name(self) -> str:
        return f"{self.threat}{self.aside}"

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
    many = sum(len(table.lines) for table in tables) > _INLINE
    most = max(_FIRST, _INLINE // len(tables)) if many else _INLINE
    boards = _told_apart([_board(table, results, pictures, most) for table in tables])
    natures = [nature(table, each) for table, each in corruptions]
    drawn = [*pictures, *chain.from_iterable(each for _, each in corruptions)]
    entries = [entry for board in boards for entry in board.lines]
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = environment()
    return templates.get_template("page.html.j2").render(
        title=visible(title),
        boards=boards,
        count=len(entries),
        answer=answer(tables, [table for table, _ in corruptions]),
        rule=RULE,
        gallery=gallery,
        certifies=any(table.certifies for table in tables),
        glance=1 < len(boards) + len(natures) <= _GLANCE,
        script=script,
        packed=_packed(boards, drawn, templates),
        policy=policy(f"'sha256-{digest}'"),
        glossary=[(name.replace("_", " "), why) for name, why in FLAGS.items()],
        natures=natures,
        filters=[
            ("data", "Data", sorted({board.table.data for board in boards})),
            ("threat", "Threat", sorted({board.table.threat for board in boards})),
            ("family", "Defense", sorted({family for entry in entries for family in entry.families})),
            ("flag", "Flag", sorted({flag.name for entry in entries for flag in entry.flags})),
        ],
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
    made.globals["fragments"] = fragments
    made.filters["breakable"] = lambda text: Markup(shown(text, "html").replace("_", "_<wbr>"))
    return made


def _seen(value: Any) -> Any:
    """Whatever a template writes, in characters that can be seen; autoescape then makes HTML of it."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def policy(script: str) -> str:
    """What a browser lets the page do: no request at all, and no script but the one named."""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script}; base-uri 'none'"


def asset(name: str) -> str:
    return (resources.files("robustbench_local.report") / "templates" / name).read_text(encoding="utf-8")


def _board(table: Table, results: Results, pictures: Sequence[Picture], most: int) -> Board:
    defended = len({str(line.defense) for line in table.lines}) > 1
    entries = [_entry(line, place, defended, table, results) for place, line in enumerate(table.lines, 1)]
    shared = entries[0].of if len({entry.of for entry in entries}) == 1 < len(entries) else ""
    if shared:
        entries = [replace(entry, of="") for entry in entries]
    lower = [f"{name.removeprefix('worst case, ')} only" for name in table.worst[:-1]]
    return Board(
        table,
        headline(table),
        words.answer(table),
        shared,
        [*lower, *table.beside],
        entries,
        list(_attacks(table)),
        [picture for picture in pictures if any(shown is table for shown in picture.tables)],
        most,
    )


def _told_apart(boards: Sequence[Board]) -> list[Board]:
    """Of boards of the same threat model what differs, and of that of fewer images why it is there."""
    alike: dict[str, list[Board]] = defaultdict(list)
    for board in boards:
        alike[board.threat].append(board)
    return [_beside(board, alike[board.threat]) for board in boards]


def _beside(board: Board, namesakes: Sequence[Board]) -> Board:
    said = [(f"{each.images:,} images", f"targets: {each.targets or 'none'}", each.grid) for each in _tables(namesakes)]
    (own,) = (said[place] for place, each in enumerate(namesakes) if each is board)
    differing = [text for text, column in zip(own, zip(*said, strict=True), strict=True) if len({*column}) > 1]
    larger = [each for each in _tables(namesakes) if each.grid == board.table.grid and each.images > board.table.images]
    why = ""
    if larger:
        elsewhere = {label.name for table in larger for label in table.attacks}
        names = dict.fromkeys(label.name for label in board.table.attacks if label.name not in elsewhere)
        who = f"{', '.join(names)} ran on these only" if names else "its attacks ran on both"
        why = (
            f"A table of its own, of {board.table.images:,} images where another has"
            f" {max(table.images for table in larger):,}: {who}, and a worst case is over the same images."
        )
    return replace(board, aside="".join(f", {text}" for text in differing if text), why=why)


def _tables(boards: Iterable[Board]) -> list[Table]:
    return [board.table for board in boards]


def _packed(boards: Sequence[Board], pictures: Sequence[Picture], templates: jinja2.Environment) -> str:
    """All that is not seen at once, as JSON, deflated (RFC 1950) and in base64: what opens below each model, by its id;
    plots, by their names; and of each board the lines that do not stand on the page, each with what sorts and finds it,
    and its row. Alike as they are, they shrink to a tenth.
    """
    opened: dict[str, str] = {}
    rest = []
    for board in boards:
        html = templates.get_template("packed.html.j2").render(board=board).split("<!--|-->")
        parts = list(zip(board.lines, html[::2], html[1::2], strict=False))  # what follows the last is empty
        opened |= {entry.id: below for entry, _, below in parts}
        rest.append([entry.data | {"row": row} for entry, row, _ in parts[board.most :]])
    content = {"opened": opened, "rest": rest, "pictures": {picture.name: picture.svg for picture in pictures}}
    return base64.b64encode(zlib.compress(json.dumps(content, ensure_ascii=False).encode(), 9)).decode()


def _entry(line: Line, place: int, defended: bool, table: Table, results: Results) -> Entry:
    cells = list(zip(table.attacks, line.rows, strict=True))
    good = [(label, row.results["robust_accuracy"]) for label, row in cells if done(row) and not label.naive]
    flags = flags_of(line.rows)
    defense = words.defense(line)
    name, of = (defense, line.model) if defended else (line.model, defense)
    about = of_line(line, results.model_infos)
    terms = [line.model, defense, str(line.defense), table.title, *(f"{attack}" for attack in table.attacks)]
    terms += [flag.label for flag in flags]
    terms += [about.title, about.authors, about.venue] if about else []
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
        lower=(*line.worst[:-1], *line.beside),
        missing=[str(label) for label, row in cells if not done(row)],
        why_missing=_why_missing([row for _, row in cells if not done(row)]),
        strongest=_strongest(min(good, key=lambda found: found[1])[0], line, results) if good else None,
        families=sorted({family or _OTHER for row in line.rows if row for family in row.families}),
        flags=flags,
        searched=visible(" ".join(terms).lower()),
        detail=detail(line, table, results),
        about=about,
        certified=line.certified,
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
    """The attack of the lowest row, or where an audit took more off the worst case "best (audit)", by its attack."""
    keys = {row.key for row in line.rows if done(row)}
    own = (retry for audit in results.audits.of(keys) for retry in audit.retries)
    retries = (retry for retry in own if retry.broken and keys & {*retry.lowers})
    stronger = sorted({visible(retry.attack) for retry in retries})
    return Label(", ".join(f"{name} (audit)" for name in stronger)) if stronger else label


def _attacks(table: Table) -> Iterator[dict[str, str]]:
    for place, label in enumerate(table.attacks):
        row = next(row for line in table.lines if (row := line.rows[place]) is not None)
        settings = ", ".join(f"{key}={value}" for key, value in row.definition["attack_settings"].items())
        yield {"label": str(label), "access": visible(row.definition["access"]), "settings": visible(settings)}
