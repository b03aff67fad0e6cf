"""How far a grid is, for whoever looks into its folder: what is done, what runs, what failed, what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from robustbench_local.grids.running import FOLDER, Planned, Running
from robustbench_local.storage.claims import Held, Pulse
from robustbench_local.storage.files import Stamp, stamp
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store


@dataclass(frozen=True)
class AtWork:
    """A job that somebody took. pulse: how far it is. gone: its owner ended, and the job waits for another one."""

    label: str
    held: Held
    pulse: Pulse | None
    gone: bool


@dataclass(frozen=True)
class Status:
    """cells: how many there are; of those done, failed (with the reason) and left, which includes what is at work.

    seconds_left: until all is done, by the cells that are done; None where none is yet, or nobody is at work. share:
    of the work that is done, in [0, 1].
    """

    cells: int
    done: int
    failed: tuple[tuple[str, str], ...]
    at_work: tuple[AtWork, ...]
    left: tuple[str, ...]
    share: float
    seconds_left: float | None

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
        at_work = self._at_work()
        done = [place for place, row in rows.items() if row.ok]
        left = [place for place in meant if place not in rows]
        begun = {each.held.name: each.pulse.share for each in at_work if each.pulse and not each.gone}
        ahead = sum(planned[place].work * (1 - begun.get(keys[place] or "", 0.0)) for place in left)
        all_work = sum(planned[place].work for place in meant)
        seconds, work = (
            sum(rows[place].results["seconds"] for place in done),
            sum(planned[place].work for place in done),
        )
        busy = sum(not each.gone for each in at_work)
        return Status(
            cells=len(meant),
            done=len(done),
            failed=tuple((planned[place].label, row.why) for place, row in rows.items() if not row.ok),
            at_work=tuple(at_work),
            left=tuple(planned[place].label for place in left),
            share=1 - ahead / all_work if all_work else float(not left),
            seconds_left=ahead * seconds / work / busy if work and busy else 0.0 if not left else None,
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
        seen = None if key is None else stamp(self._store.folder / "rows" / f"{key}.json")
        if key is None:
            return None
        if seen is None:
            row = self._store.read(key)  # packed, perhaps
        elif (known := self._read.get(key)) is not None and known[0] == seen:
            row = known[1]
        else:
            row = self._store.read(key)
            self._read[key] = seen, row
        again = row is not None and not row.ok and not row.stays and self._running.start not in (None, row.start)
        return None if again else row

    def _at_work(self) -> list[AtWork]:
        claims = self._running.claims
        return [
            AtWork(str(held.about.get("label", held.name)), held, claims.pulse(held.owner), claims.is_gone(held.owner))
            for held in claims.all()
        ]


def newest(folder: Path) -> Running | None:
    """What runs there, or ran last; None where nothing ever did, or where that was removed."""
    plans = sorted((folder / FOLDER).glob("plan-*.json"), key=lambda path: path.stat().st_mtime)
    return Running(folder, plans[-1].stem.removeprefix("plan-"), None) if plans else None
