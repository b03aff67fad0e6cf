"""What strangers' names may do to whoever reads them: nothing, in a terminal, in Markdown, HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from robustbench_local.audit.card import Card
from robustbench_local.audit.finding import Status, Timed
from robustbench_local.cli import listings
from robustbench_local.cli.listings import Item
from robustbench_local.cli.main import main
from robustbench_local.cli.output import wrapped
from robustbench_local.cli.preview import show_preview
from robustbench_local.core.escaping import Target, shown
from robustbench_local.core.progress import Terminal
from robustbench_local.storage.row import Row
from tests.helpers.packed import unpacked
from tests.helpers.rows import a_row, stored

HOSTILE = (
    "=cmd|A0!\x1b[31m\x1b]8;;http://evil\x07[red]x[/y]\u202e\u200b\x00\x9b|`*_a_*~~b~~"
    '</script><script>alert(1)</script><img src=x onerror="alert(1)">](http://e.vil)$x$&amp;'
    "\\input{/etc/passwd}%#\n# h\r\t"
)
TARGETS: tuple[Target, ...] = ("terminal", "markdown", "html", "csv", "tex")
SEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def unseen(text: str) -> set[str]:
    """Characters that do something, or hide, but for the line breaks that a file is made of."""
    return {char for char in text if unicodedata.category(char) in SEEN and char != "\n"}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def tags(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    return parser


@seed(0)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40) | st.text("|`*_<>[]()$&~#+-=@\\{}%^\"'\x1b\n\u202e:/w. a", max_size=40))
def test_no_text_is_obeyed(text: str) -> None:
    each = {target: shown(text, target) for target in TARGETS}
    for plain in each.values():
        assert not unseen(plain) and "\n" not in plain
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>`*\[\]$]", each["markdown"]) and "://" not in each["markdown"]
    assert not tags(f'<p title="{each["html"]}">{each["html"]}</p>').handlers
    assert tags(f'<p title="{each["html"]}">{each["html"]}</p>').found == ["p"]
    assert not each["csv"].lstrip().startswith(("=", "+", "-", "@"))
    commands = {r"\textbackslash", r"\textasciitilde", r"\textasciicircum", r"\textless", r"\textgreater"}
    commands |= {r"\textbar", r"\textquotedbl"}
    assert {*re.findall(r"\\[a-zA-Z]+", each["tex"])} <= commands
    assert not re.match(r"[\[*]", each["tex"])


@pytest.mark.parametrize("text", ["pgd", "jpeg + adversarial_training", "linf:8/255", "near_tie:2", "p = 0.05, 12 %"])
def test_ordinary_names_are_left_alone(text: str) -> None:
    assert {shown(text, target) for target in ("terminal", "markdown", "html", "csv")} == {text}


def hostile_row(**about: Any) -> tuple[Row, np.ndarray]:
    """A row with the hostile text wherever a row has text that is a stranger's."""
    text = HOSTILE
    row, bits = a_row(
        [1] * 15 + [0] * 15,
        ids="0:30",
        **{
            "data": text,
            "split": text,
            "model": text,
            "defense": text,
            "defense_settings": {text: text},
            "attack": text,
            "attack_settings": {text: text, "severity": 1},
            "flags": [text, f"{text}:3"],
        }
        | about,
    )
    row["environment"] = {"robustbench_local": text, "torch": text, "python": text, "device": text}
    results = row["results"]
    classes = [{"class": f"{text}{k}", "n": 15, "clean": 1.0, "robust": 0.5, "robust_interval": [0, 1]} for k in (0, 1)]
    results |= {"classes": 2, "per_class": classes, text: 1.0, "corruption_accuracy": 0.5}
    results |= {"corruption_interval": [0.3, 0.7], "adversarial_confidence": None, "attack_success_rate": None}
    return row, bits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "grid"
    failed = a_row(
        None,
        data=HOSTILE,
        split=HOSTILE,
        model=HOSTILE,
        defense=HOSTILE,
        attack="x",
        ids="0:30",
        defense_settings={HOSTILE: HOSTILE},
    )[0]
    failed["error"] = {"cell": HOSTILE, "type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE, "seconds": 0.0}
    fog = hostile_row(threat="none", access="none", corruption=HOSTILE)
    other = hostile_row(defense="plain")
    arrays = {"predicted": np.zeros(30, np.int16), "clean_predicted": np.zeros(30, np.int16)}
    store = stored(place, hostile_row(), other, fog, (failed, np.zeros(0)), audited=False, **arrays)
    finding = {"check": HOSTILE, "status": "broken", "evidence": HOSTILE, "figures": {}, "source": HOSTILE}
    finding |= {"advice": HOSTILE}
    store.keep_audit(
        "a.json",
        {
            "rows": [hostile_row()[0]["key"]],
            "retries": [],
            "findings": [{"finding": finding, "threat": "linf:8/255", "attack": True}],
        },
    )
    return place


def test_no_output_of_a_report_obeys_a_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "groups.json").write_text(json.dumps({HOSTILE: [1, 2, 3]}))
    groups = ["--confusion", "--groups", str(folder / "groups.json")]
    commands = (["report", "--title", HOSTILE], ["metrics", *groups], ["compare", str(folder)], ["gallery"])
    for command, *more in commands:
        assert main([command, str(folder), *more]) == (2 if command == "gallery" else 0)
        assert not [line for stream in capsys.readouterr() for line in stream.split("\n") if unseen(line)], command
    files = [path for path in folder.rglob("*.*") if path.is_file() and not {"rows", "audits"} & {*path.parts}]
    names = {path.name for path in files}
    assert names >= {"table.md", "table.csv", "table.tex", "table.json", "index.html", "corruption.md"}
    assert names >= {"corruption.csv", "metrics.md", "metrics.json"}
    for path in files:
        if path.name != "groups.json":
            check(path)


def check(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not unseen(text), path.name
    match path.suffix:
        case ".md":
            assert not re.search(r"(?<!\\)<", text), path.name
            assert "](" not in text.replace(r"\]", "") and "://" not in text
            widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
            blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
            assert widths and all(
                len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1 for block in blocks
            )
        case ".html":
            found = tags(text)
            packed = path.name == "index.html"
            assert found.found.count("script") == 1 + packed and not found.handlers
            for below in unpacked(path)["opened"].values() if packed else ():
                assert not unseen(below) and "script" not in tags(below).found and not tags(below).handlers
            assert "evil" not in re.findall(r'(?:href|src)="([^"]*)"', text)
        case ".svg":
            assert "<script" not in text and "onerror=" not in re.sub(r">[^<]*<", "><", text)
        case ".csv":
            for row in csv.reader(io.StringIO(text)):
                assert not any(cell.lstrip().startswith(("=", "+", "@")) for cell in row)
        case ".tex":
            assert r"\input" not in text
        case ".json":
            json.loads(text)


def test_no_line_of_the_command_line_obeys_a_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(listings.LISTS, "attacks", lambda: [Item(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})])
    assert main(["list", "attacks"]) == 0
    with Terminal() as progress:
        progress.line(HOSTILE)
        progress.advance(HOSTILE, 0.5)
    cell = {
        "forwards": 1,
        "backwards": 1,
        "prepared_forwards": 0,
        "prepared_backwards": 0,
        "seconds": 1.0,
        "audit": 0.0,
    }
    show_preview([cell | {"status": "to do", "cell": f"{HOSTILE} | {HOSTILE}"}])
    Card((Timed(HOSTILE, Status.BROKEN, HOSTILE, source=HOSTILE, advice=HOSTILE),), "linf:0.1", 4, 1, 0, 1).show()
    assert main(["run", "grid=quickstart", f'data="{HOSTILE}"']) == 2
    assert main(["report", str(tmp_path / "no\x1b[31mwhere")]) == 2
    out, err = capsys.readouterr()
    assert not unseen(out) and not unseen(err) and "alert(1)" in out and "alert(1)" in err
    assert wrapped(HOSTILE).isprintable() or "\n" in wrapped(HOSTILE)


def test_rich_reads_no_markup_in_what_is_shown() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(Text(shown("[red]x[/y]", "terminal")))
    assert console.file.getvalue().strip() == "[red]x[/y]"  # type: ignore[attr-defined]
