"""Results -> a static site: an index over grids, each one's page, tables and rows, history, models side by side.

Dates are those of rows: the same results give the same files, whenever the site is made.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from robustbench_local import __version__
from robustbench_local.core.errors import ConfigError, StoreError
from robustbench_local.core.escaping import shown, visible
from robustbench_local.report.citation import bibtex
from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.headline import answer, weathered
from robustbench_local.report.history import History, history
from robustbench_local.report.page import asset, environment, policy
from robustbench_local.report.results import Results, with_rows
from robustbench_local.report.side_by_side import SideBySide
from robustbench_local.report.write import GALLERY, write_report
from robustbench_local.storage.archive import AUDITS, NAME, ROWS
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.packing import pack
from robustbench_local.storage.store import Store

_BIB = "cite.bib"


@dataclass(frozen=True)
class Listed:
    """A grid of the index. place: the address of its folder in the site; downloads: (what, file in there)."""

    name: str
    place: str
    answer: list[str]
    models: int
    first: str
    last: str
    versions: list[str]
    downloads: list[tuple[str, str]]
    history: History


def write_site(folders: Sequence[Path], into: Path, title: str) -> list[Listed]:
    """Write INTO/index.html, cite.bib, and of each grid INTO/NAME/ -> the grids, by name.

    Folders of one name are runs of one grid: the last one is shown, all are its history. ConfigError where the site
    would be written over results, StoreError as in Results.read and write_report.
    """
    runs: dict[str, list[Path]] = defaultdict(list)
    for one in (one for folder in folders for one in with_rows(folder.expanduser())):
        if into.resolve() in (one.resolve(), one.resolve().parent):
            raise ConfigError(f"the site would be written over the results in {one}: give --into another folder")
        if Store(one, own=False).rows():
            runs[one.resolve().name].append(one)
        else:
            warnings.warn(shown(f"{one} is left out: no row in it can be read", "terminal"), stacklevel=2)
    if not runs:
        raise StoreError(f"no row in {', '.join(map(str, folders))} can be read: see the warnings")
    together, entries = SideBySide(), [bibtex()]
    listed = []
    for name, each in sorted(runs.items()):
        results, found = _grid(visible(name), each, into / name, together)
        listed.append(found)
        entries += [info.bibtex for info in results.model_infos.values() if info.bibtex]
    script = asset("site.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    index = (
        environment()
        .get_template("site.html.j2")
        .render(
            title=visible(title),
            grids=listed,
            last=max(each.last for each in listed),
            version=__version__,
            together=together,
            cite=bibtex().splitlines(),
            bib=_BIB,
            script=script,
            policy=policy(f"'sha256-{digest}'"),
        )
    )
    bibliography = "\n".join(dict.fromkeys(map(_plain, entries)))
    for file, text in (("index.html", index), (_BIB, bibliography)):
        with whole_file(into / file) as written:
            written.write(text.encode())
    return listed


def _grid(name: str, runs: Sequence[Path], target: Path, together: SideBySide) -> tuple[Results, Listed]:
    """One grid's part of the site."""
    stores = [Store(run, own=False) for run in runs]
    dates = [max((row.created for row in store.rows()), default="") for store in stores]
    last = runs[dates.index(max(dates))]
    if (last / GALLERY).is_file():
        _copy(last / GALLERY, target / GALLERY)
    results = Results.read([last])
    tables = write_report(results, target, name)
    corruptions = corruption_tables(results.rows, results.baseline)
    together.add(name, tables, corruptions)
    downloads = [
        ("tables as CSV", "table.csv"),
        ("JSON", "table.json"),
        ("Markdown", "table.md"),
        ("LaTeX", "table.tex"),
    ]
    if _archived(last, target):
        downloads.insert(0, ("all rows", NAME))
    if corruptions:
        downloads.append(("corruptions as CSV", "corruption.csv"))
    made = sorted(row.created[:10] for row in results.rows if row.created)
    versions = {str(row.get("environment", {}).get("robustbench_local", "")) for row in results.rows}
    models = {row.of_model() for row in results.rows}
    return results, Listed(
        name,
        quote(target.name),
        [*answer(tables, corruptions), *(map(weathered, corruptions) if tables else ())],
        len(models),
        *((made[0], made[-1]) if made else ("", "")),
        sorted(visible(version) for version in versions - {""}),
        downloads,
        history(stores),
    )


def _archived(folder: Path, target: Path) -> bool:
    """Put all rows of a folder into TARGET's archive; whether they are few enough for one."""
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(StoreError):
        copy = Path(place)
        if (folder / NAME).is_file():
            shutil.copy(folder / NAME, copy / NAME)
        for kind in (ROWS, AUDITS):
            if (folder / kind).is_dir():
                shutil.copytree(folder / kind, copy / kind)
        if any((copy / kind).exists() for kind in (ROWS, AUDITS)):
            pack(copy)
        _copy(copy / NAME, target / NAME)
        return True
    return False


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, whole_file(target) as written:
        shutil.copyfileobj(read, written)


def _plain(entry: str) -> str:
    """A BibTeX entry in which every character can be seen, line by line."""
    return "".join(f"{visible(line)}\n" for line in entry.splitlines())
