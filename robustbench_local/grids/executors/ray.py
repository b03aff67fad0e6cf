"""By a Ray cluster: one that is there, or one of this machine alone. Each job is a task, for which Ray finds a machine.

A task hands its job to a process of its own (remote.py), so that a plug-in that dies takes no worker of Ray's along. A
worker, or a whole machine, that is lost costs the jobs that were on it, which are sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from robustbench_local.config.settings import construct
from robustbench_local.core.errors import RobustBenchError, said
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.deaths import MOST, Death
from robustbench_local.grids.executors.errands import Errands
from robustbench_local.grids.executors.order import in_order
from robustbench_local.grids.executors.ray_cluster import Asked, check_room, connected, machines_of, room_for
from robustbench_local.grids.executors.remote import AUDIT, MODEL, Errand, Files, Report, carry_out
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group, Job
from robustbench_local.grids.shards import parts_of
from robustbench_local.grids.shelf import Shelf
from robustbench_local.grids.status import Watch

_POLL = 0.5  # seconds between two looks at what came back
_LOOK = 2.0  # seconds between two looks at how far all is


def run(grid: Grid) -> None:
    """Every job of the grid that is not done. ConfigError where no machine of the cluster has what a cell asks for."""
    asked = construct(Asked, grid.config.cluster or {}, "cluster, for Ray,")
    wanted = asked.for_a_cell(grid)
    with connected(grid, asked, wanted) as (ray, where):
        check_room(wanted, machines_of(ray), where)
        _Sender(grid, wanted, ray).run()


@dataclass(frozen=True)
class _Sent:
    """What is sent: a job of a group, images start:stop (rows) of a cell, or, with no job, the making of the model."""

    group: Group
    job: Job | None = None
    rows: slice | None = None

    @property
    def label(self) -> str:
        if self.job is None:
            return f"the model of {self.group}"
        return self.job.label + (f", images {self.rows.start}:{self.rows.stop}" if self.rows else "")


class _Sender:
    """Sends jobs, and takes in what comes back."""

    def __init__(self, grid: Grid, wanted: Mapping[str, float], ray: Any) -> None:
        self._ray = ray
        self.grid, self.running, self.shelf = grid, grid.running, Shelf(grid)
        self._wanted = wanted
        self._bench = Bench(grid, trains=False)
        self._left: dict[int, deque[_Sent]] = {}  # of each model its cells, and its audit as the last one
        for job in in_order(grid):
            self._left.setdefault(job.group.place, deque()).append(_Sent(job.group, job))
        self._split: set[Job] = set()  # cells whose parts were sent
        self._flying: dict[Any, _Sent] = {}
        self._kept: dict[int, Any] = {}  # of each model the files of the cache, where Ray keeps them
        self._learnt: set[int] = set()  # models of which it was asked whether this machine has what they learnt
        self._early = 0  # jobs in a row that ended before they began
        self._watch = Watch(grid.store, self.running)
        rest = {name: amount for name, amount in wanted.items() if name not in ("CPU", "GPU", "memory")}
        self._task = ray.remote(
            num_cpus=wanted.get("CPU", 0),
            num_gpus=wanted.get("GPU", 0),
            memory=wanted.get("memory"),
            resources=rest or None,
            max_retries=0,  # sent again by hand: what a job did to its workers is counted
        )(carry_out)
        self._errands = Errands(grid, max(1, int(wanted.get("CPU", 1))))

    def run(self) -> None:
        """Until nothing is left to do. RobustBenchError where no worker can begin, or a disk is full."""
        looked = 0.0
        try:
            with self._errands.token():
                while self._send() or self._flying:
                    ready, _ = self._ray.wait(list(self._flying), timeout=_POLL)
                    for reference in ready:
                        self._came_back(reference, self._flying.pop(reference))
                    if time.monotonic() - looked > _LOOK:
                        looked = time.monotonic()
                        status = self._watch.look()
                        self.grid.progress.advance(status.in_short(), status.share)
        finally:
            for reference in self._flying:
                with suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(reference, force=True)

    def _send(self) -> bool:
        """As many jobs as may be sent now. Whether anything is left to do."""
        machines = machines_of(self._ray)
        # those for which there is no room wait at Ray, so that none stands idle; and a cluster that grows sees them
        most = self.grid.config.workers or 2 * sum(room_for(self._wanted, machine) for machine in machines) or 1
        for place, jobs in tuple(self._left.items()):
            for sent in self._next(jobs, most - len(self._flying)):
                self._flying[self._task.remote(*self._packed(sent))] = sent
            if not jobs and not any(sent.group.place == place for sent in self._flying.values()):
                del self._left[place]
            if len(self._flying) >= most:
                break
        return bool(self._left)

    def _next(self, left: deque[_Sent], most: int) -> list[_Sent]:
        """Of a group what can be sent; it is no more among what is left then."""
        if not left or most <= 0:
            return []
        group = left[0].group
        at_work = [sent for sent in self._flying.values() if sent.group is group]
        keys = self._keys(group)
        if keys is None:
            return [] if at_work else [_Sent(group)]
        found: list[_Sent] = []
        while left and len(found) < most:
            job = left[0].job
            assert job is not None
            if self._must_wait(left[0], [*at_work, *found]):
                break
            sent = left.popleft()
            key = None if job.cell is None else keys[job.cell]
            if self.running.is_audited(group.place) if job.cell is None else key is None or self._is_settled(key):
                continue
            if parts := self._parts(sent):
                self._split.add(job)
                left.extendleft(reversed(parts))
                self._put_back(sent)
                continue
            found.append(sent)
        return found

    def _put_back(self, sent: _Sent) -> None:
        """Last, before the audit: what ended a worker comes after what may show that it was ended from outside."""
        left = self._left[sent.group.place]
        ends = bool(left) and left[-1].job is not None and left[-1].job.cell is None
        left.insert(len(left) - 1 if ends else len(left), sent)

    def _must_wait(self, sent: _Sent, others: list[_Sent]) -> bool:
        """For others of its group that are on their way: an audit is of all rows, and a cell of all its parts."""
        if sent.job is None or sent.rows is not None:
            return False
        return bool(others) if sent.job.cell is None else any(other.job == sent.job for other in others)

    def _parts(self, sent: _Sent) -> list[_Sent]:
        """Of a cell that is done in parts, once."""
        job, size = sent.job, self.grid.config.shard
        if size is None or job is None or job.cell is None or job in self._split:
            return []
        task = self.grid.task(job.group.cells[job.cell], None)
        return [_Sent(job.group, job, rows) for rows in parts_of(task, size) or ()]

    def _keys(self, group: Group) -> list[str | None] | None:
        """The names of its rows, once its model was made: elsewhere, unless what it learnt is here."""
        known = self.running.keys(group.place)
        if known is None and group.place not in self._learnt:
            self._learnt.add(group.place)
            if self.grid.builder.origin(group.spec) is not None:
                known = self._bench.keys(group)
        return known

    def _is_settled(self, key: str) -> bool:
        """Whether there is nothing left to do; a neighbour's row is taken."""
        for store, row in self.shelf.good(key):
            if store is not self.grid.store:
                self.grid.store.take(row, store, grid=self.grid.name)
            break
        return self.shelf.settled(key) is not None

    def _packed(self, sent: _Sent) -> tuple[Errand, Files, Any]:
        """(the job, files of the results, files of the cache): those of the cache lie at Ray once for all jobs."""
        group = sent.group
        what = MODEL if sent.job is None else AUDIT if sent.job.cell is None else sent.job.cell
        if sent.job is not None and group.place not in self._kept:
            self._kept[group.place] = self._ray.put(self._errands.kept(group))
        kept = self._errands.kept(group) if sent.job is None else self._kept[group.place]
        return self._errands.of(group, what, sent.rows), self._errands.results(group, what), kept

    def _came_back(self, reference: Any, sent: _Sent) -> None:
        try:
            report: Report = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RobustBenchError):
                raise RobustBenchError(said(error.cause)) from error
            raise RobustBenchError(
                f"a worker of Ray cannot begin with {sent.label}: {said(error.cause)}. robustbench_local must be"
                " installed on every machine of the cluster, in the same version"
            ) from error
        except self._ray.exceptions.RayError as error:  # the worker is lost, or its machine
            death = Death(f"the loss of its worker of Ray ({type(error).__name__})")
            report = Report([], death=death, doing=self._name(sent))
        self._errands.take_in(report)
        if report.death is not None:
            self._died(sent, report.death, report.doing)
        elif sent.job is not None:
            self._early = 0
            self._ended(sent)

    def _died(self, sent: _Sent, death: Death, doing: str) -> None:
        """It is sent again; three times, and then once more, to be given up (bench.py)."""
        self.grid.progress.line(f"{sent.label}: a worker died of {death.how}: another one takes its place")
        if doing:
            self._early = 0
            self.running.deaths.note(doing, death)
            holder = self.running.claims.holder(doing)  # on another machine it would seem to live for some minutes
            if holder is not None and holder.about.get("start") == self.grid.start:
                self.running.claims.release(doing)
        else:
            self._early += 1
            if self._early >= MOST:
                raise RobustBenchError(f"no worker can begin: {death.how}. {death.last_words}")
        if sent.job is not None:
            self._put_back(sent)

    def _ended(self, sent: _Sent) -> None:
        """What its deaths meant, where the worker that ended the job did not see this folder; and parts are no more
        needed.
        """
        name = self._name(sent)
        if sent.job in self._split and sent.rows is None:
            for file in self._errands.parts(name):
                file.unlink(missing_ok=True)
        if not self.running.deaths.of(name):
            return
        row = None if sent.job is None or sent.job.cell is None else self.shelf.settled(name.partition(".")[0])
        if row is not None and row.stays:
            self.running.deaths.forget(name)
        else:
            self.running.deaths.came_through(name)

    def _name(self, sent: _Sent) -> str:
        """Of what a worker is at: as its pulse says it."""
        keys = self.running.keys(sent.group.place)
        if sent.job is None or keys is None:
            return self.running.building(sent.group)
        key = self.running.name(sent.job) if sent.job.cell is None else keys[sent.job.cell] or ""
        return key if sent.rows is None else f"{key}.{sent.rows.start}-{sent.rows.stop}"
