"""What a worker does: takes a job that nobody is at, does it, and looks for the next."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from enum import Enum

from robustbench_local.grids.bench import Bench
from robustbench_local.grids.jobs import Group, Job
from robustbench_local.training.turn import BusyError

POLL = 0.2  # seconds between two looks at what others do
_AGAIN = 3  # how often a model's rows are made again that are there no more
NOTED = 0.5  # seconds after which whoever looks after workers has noted what one died of


class Found(Enum):
    """What became of a job that was looked at."""

    SETTLED = "nothing is left to do about it"
    WORKED = "this process did it now"
    PARTLY = "this process did a part of it now"
    WAITING = "somebody else is at it, or it must wait for others"


def work(bench: Bench, jobs: Sequence[Job], mine: Collection[Job] | None = None, *, alone: bool = False) -> None:
    """Do the jobs, in this order, until none is left.

    mine: a share of the cells. The others are then left alone, unless somebody began one and is gone; and nobody is
    waited for. alone: the only worker of this start of the command, which says what was done before.
    """
    left, waiting, again = list(jobs), False, Counter[Group]()
    while left:
        worked = False
        for job in _harmless_first(bench, left):
            if job.cell is None and again[job.group] < _AGAIN and _put_back(bench, job.group, left):
                again[job.group] += 1
                worked = True
                break
            found = _look(bench, job, left, mine)
            if found in (Found.SETTLED, Found.WORKED):
                left.remove(job)
            if found is Found.SETTLED and alone and job.cell is not None and _has_row(bench, job):
                bench.grid.progress.line(f"{job.label}: done before")
            if found in (Found.WORKED, Found.PARTLY):
                bench.grid.progress.rest()
                worked = True
                break
        if worked:
            waiting = False
        elif mine is not None and not any(job in mine for job in left):
            return
        elif left:
            if not waiting:
                _say_who(bench, left)
            waiting = True
            time.sleep(POLL)


def _harmless_first(bench: Bench, left: Sequence[Job]) -> list[Job]:
    """Jobs that ended processes come last: by then it is known whether others were ended too, from outside."""
    deaths = bench.grid.running.deaths.counts()
    return sorted(left, key=lambda job: deaths[_name(bench, job) or ""]) if deaths else list(left)


def _name(bench: Bench, job: Job) -> str | None:
    """Of its claim; None while the model is not built, and for what means nothing."""
    if job.cell is None:
        return bench.grid.running.name(job)
    keys = bench.grid.running.keys(job.group.place)
    return None if keys is None else keys[job.cell]


def _look(bench: Bench, job: Job, left: Collection[Job], mine: Collection[Job] | None) -> Found:
    running, group = bench.grid.running, job.group
    if job.cell is None:
        if running.is_audited(group.place):
            return Found.SETTLED
        if any(other.group is group for other in left if other is not job):
            return Found.WAITING
        return _claimed(bench, job, running.name(job))
    keys = bench.keys(group)
    if keys is None:
        return Found.WAITING
    key = keys[job.cell]
    others = mine is not None and job not in mine
    if key is None or (bench.shelf.ended(key) if others else bench.shelf.settled(key)):
        return Found.SETTLED
    if others and not running.claims.is_left(key):
        return Found.WAITING
    if parts := bench.missing_parts(job):
        return part(bench, job, key, parts)
    return _claimed(bench, job, key)


def part(bench: Bench, job: Job, key: str, parts: Sequence[slice]) -> Found:
    """The first part of a cell that nobody is at."""
    running = bench.grid.running
    for rows in parts:
        name = f"{key}.{rows.start}-{rows.stop}"
        label = f"{job.label}, images {rows.start}:{rows.stop}"
        with _claim(bench, name, label) as mine:
            if mine:
                try:
                    bench.do_part(job, rows, name)
                finally:
                    running.claims.says("", "idle")
                return Found.PARTLY
    return Found.WAITING


def _put_back(bench: Bench, group: Group, left: list[Job]) -> bool:
    """Cells whose rows were removed or damaged since they were done are to be done again, before they are audited."""
    keys = bench.grid.running.keys(group.place)
    if keys is None or any(job.group is group and job.cell is not None for job in left):
        return False
    lost = [Job(group, cell) for cell, key in enumerate(keys) if key and not bench.shelf.ended(key)]
    if lost:
        bench.grid.progress.line("rows were removed or damaged while the grid ran: they are made again")
        left[:0] = lost
    return bool(lost)


def _say_who(bench: Bench, left: Collection[Job]) -> None:
    """Whom this process waits for, if it is another start of the command."""
    for job in left:
        name = _name(bench, job)
        holder = bench.grid.running.claims.holder(name) if name else None
        if holder is not None and holder.about.get("start") != bench.grid.start:
            bench.grid.progress.line(f"waiting for {holder.owner}, which is at work on {job.label}")


def _has_row(bench: Bench, job: Job) -> bool:
    """Whether the cell means something for its model, and so has a row."""
    keys = bench.keys(job.group)
    return keys is not None and job.cell is not None and keys[job.cell] is not None


def _claimed(bench: Bench, job: Job, name: str) -> Found:
    running = bench.grid.running
    with _claim(bench, name, job.label) as mine:
        if not mine:
            return Found.WAITING
        # whoever had the claim before may have ended the job since it was looked at
        key = None if job.cell is None else name
        if bench.shelf.settled(key) if key else running.is_audited(job.group.place):
            return Found.SETTLED
        try:
            row = bench.do(job)
        except BusyError:
            return Found.WAITING
        finally:
            running.claims.says("", "idle")  # what ends this process from here on is not the job's fault
        return Found.PARTLY if key and row is None else Found.WORKED


@contextlib.contextmanager
def _claim(bench: Bench, name: str, label: str) -> Iterator[bool]:
    """Whether this process has the claim until the block ends."""
    claims = bench.grid.running.claims
    left = claims.is_left(name)
    with claims.held(name, label=label, start=bench.grid.start) as mine:
        if mine and left:
            time.sleep(NOTED)
        yield mine
