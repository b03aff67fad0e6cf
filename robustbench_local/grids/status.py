"""How far a grid is, for whoever looks into its folder: what is done, what runs, what failed, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from robustbench_local.core.errors import StoreError
from robustbench_local.grids.running import FOLDER, Planned, Running
from robustbench_local.storage.archive import NAME, ROWS
from robustbench_local.storage.files import Stamp, stamp
from robustbench_local.storage.owner import Owner
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store


@dataclass(frozen=True)
class AtWork:
    """What somebody is at. since: of the owner's clock, seconds since 1970. share: that is done, in [0, 1], None where
    it does not say. gone: the owner ended, and the work waits for another one.
    """

    label: str
    owner: Owner
    since: float
    share: float | None
    gone: bool


@dataclass(frozen=True)
class Status:
    """cells: how many there are; of those done, failed (label and reason) and left, which includes what is at work.

    share: of the work that is done, in [0, 1]. seconds_left: until all cells are done, by what those took that are;
    None where none is yet, or nobody is at work.
    """

    cells: int
    done: int
    failed: tuple[tuple[str, str], ...]
    at_work: tuple[AtWork, ...] = ()
    left: tuple[str, ...] = ()
    share: float = 1.0
    seconds_left: float | None = 0.0

    def in_short(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done + len(self.failed)} of {self.cells} cells{failed}"


class Watch:
    """Looks again and again; a row that did not change is not read twice."""

    def __init__(self, store: Store, running: Running) -> None:
        self._store, self._running = store, running
        self._read: dict[str, tuple[Stamp, Row | None]] = {}

    def look(self) -> Status:
        planned = self._running.planned()
        keys = self._keys(planned)
        meant = [place for place, key in enumerate(keys) if key != ""]
        rows = {place: row for place in meant if (row := self._row(keys[place])) is not None}
        done = [place for place, row in rows.items() if row.ok]
        left = [place for place in meant if place not in rows]
        at_work = self._at_work()
        begun = {claim: each.share or 0.0 for claim, each in at_work.items() if not each.gone}
        ahead = sum(planned[place].work * (1 - begun.get(keys[place] or "", 0.0)) for place in left)
        whole, behind = (sum(planned[place].work for place in places) for places in (meant, done))
        pace = sum(rows[place].results["seconds"] for place in done) / behind if behind else None
        return Status(
            cells=len(meant),
            done=len(done),
            failed=tuple((planned[place].label, row.why) for place, row in rows.items() if not row.ok),
            at_work=tuple(at_work.values()),
            left=tuple(planned[place].label for place in left),
            share=1 - ahead / whole if whole else float(not left),
            seconds_left=0.0 if not left else None if pace is None or not begun else ahead * pace / len(begun),
        )

    def _keys(self, planned: Sequence[Planned]) -> list[str | None]:
        """Of each cell the name of its row, None where nobody knows it yet, "" where it means nothing."""
        found: list[str | None] = []
        for group, cells in groupby(planned, key=lambda cell: cell.group):
            own = self._running.keys(group)
            found += [None for _ in cells] if own is None else [key or "" for key in own]
        return found

    def _row(self, key: str | None) -> Row | None:
        """The row that is there, unless it is an error that is tried again now."""
        if key is None:
            return None
        seen = stamp(self._store.folder / ROWS / f"{key}.json")
        if seen is None:
            row = self._store.read(key)  # packed, perhaps
        elif key in self._read and self._read[key][0] == seen:
            row = self._read[key][1]
        else:
            row = self._store.read(key)
            self._read[key] = seen, row
        again = row is not None and not row.ok and not row.stays and self._running.start not in (None, row.start)
        return None if again else row

    def _at_work(self) -> dict[str, AtWork]:
        """By the name of the claim, or of what else a process says that it does, such as making a model."""
        claims = self._running.claims
        said = {pulse.owner.name: pulse for pulse in claims.pulses() if not claims.is_gone(pulse.owner)}
        found = {
            name: AtWork(pulse.what, pulse.owner, pulse.since, pulse.share, False)
            for pulse in said.values()
            if (name := pulse.doing)
        }
        for held in claims.all():
            pulse = said.get(held.owner.name)
            share = pulse.share if pulse is not None and pulse.doing == held.name else None
            label, gone = str(held.about.get("label", held.name)), claims.is_gone(held.owner)
            found[held.name] = AtWork(label, held.owner, held.since, share, gone)
        return found


def watch(folder: Path) -> Callable[[], Status]:
    """Looks at what runs in a grid's folder, or ran there last; where nobody knows of any plan, at its rows.

    StoreError where it is no such folder.
    """
    store = Store(folder, own=False)
    plans = sorted((folder / FOLDER).glob("plan-*.json"), key=lambda path: path.stat().st_mtime)
    if plans:
        return Watch(store, Running(folder, plans[-1].stem.removeprefix("plan-"), None)).look
    if not (folder / ROWS).is_dir() and not (folder / NAME).is_file():
        raise StoreError(f"{folder} holds no rows and no plan: name the folder of a grid, as results/cifar10_pgd")
    return lambda: _of_rows(store.rows())


def _of_rows(rows: Sequence[Row]) -> Status:
    failed = tuple((f"{row.model} {row.defense} | {row.attack} {row.threat}", row.why) for row in rows if not row.ok)
    return Status(len(rows), len(rows) - len(failed), failed)
