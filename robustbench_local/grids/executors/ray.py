"""By a Ray cluster: one that is there, or one of this machine alone. Each job is a task, for which Ray finds a machine.

A task hands its job to a process of its own (remote.py), so that a plug-in that dies takes no worker of Ray's along. A
worker, or a whole machine, that is lost costs the jobs that were on it, which are sent again.
"""

from __future__ import annotations

import importlib
import math
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustbench_local.config.quantities import size
from robustbench_local.config.settings import construct
from robustbench_local.core.errors import ConfigError, RobustBenchError, said
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.deaths import MOST, Death
from robustbench_local.grids.executors.child import Orders
from robustbench_local.grids.executors.local import usual_workers
from robustbench_local.grids.executors.order import in_order
from robustbench_local.grids.executors.remote import AUDIT, MODEL, RUNNING, Errand, Files, Report, carry_out, write
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group, Job
from robustbench_local.grids.shelf import Shelf
from robustbench_local.grids.status import Watch
from robustbench_local.storage.archive import NAME as PACKED
from robustbench_local.storage.cache_folder import cache_folder

_POLL = 0.5  # seconds between two looks at what came back
_LOOK = 2.0  # seconds between two looks at how far all is
_STORE = 200 * 2**20  # bytes of memory for what a cluster of this machine passes on: rows are small


@dataclass(frozen=True)
class Asked:
    """What `cluster` of a grid says to Ray.

    address: of a cluster that is there, as in RAY_ADDRESS; without both one of this machine is started. num_cpus,
    num_gpus, resources: for a cell; by default one core, and a GPU where the grid runs on GPUs. runtime_env: what Ray
    brings to its machines, such as {working_dir: .}
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    runtime_env: dict[str, Any] | None = None

    def for_a_cell(self, grid: Grid) -> dict[str, float]:
        """By the names that Ray has for them."""
        gpus = float(grid.builder.device.type == "cuda") if self.num_gpus is None else self.num_gpus
        memory = 0 if grid.config.memory is None else size(grid.config.memory, "memory")
        asked = {"CPU": self.num_cpus, "GPU": gpus, "memory": float(memory), **self.resources}
        return {name: amount for name, amount in asked.items() if amount}


def run(grid: Grid) -> None:
    """Every job of the grid that is not done. ConfigError where no machine of the cluster has what a cell asks for."""
    asked = construct(Asked, grid.config.cluster or {}, "cluster, for Ray,")
    wanted = asked.for_a_cell(grid)
    with _connected(grid, asked, wanted) as (ray, where):
        check_room(wanted, _machines(ray), where)
        _Sender(grid, wanted, ray).run()


def _machines(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_room(wanted: Mapping[str, float], machines: Sequence[Mapping[str, float]], where: str) -> None:
    """ConfigError unless a machine has all of it: Ray would wait for one, for ever and without a word."""
    if not any(_room(wanted, machine) for machine in machines):
        have = "; ".join(_named({name: machine.get(name, 0.0) for name in wanted}) for machine in machines) or "none"
        raise ConfigError(
            f"a cell asks for {_named(wanted)}, and no machine of the Ray cluster {where} has that: they have {have}."
            " Ask for less by cluster.num_cpus, cluster.num_gpus, cluster.resources or memory, or add such a machine"
        )


def _room(wanted: Mapping[str, float], machine: Mapping[str, float]) -> int:
    """How many cells a machine can have at once."""
    return min((int(machine.get(name, 0.0) / amount) for name, amount in wanted.items()), default=1)


def _named(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in amounts.items())


@contextmanager
def _connected(grid: Grid, asked: Asked, wanted: Mapping[str, float]) -> Iterator[tuple[Any, str]]:
    """Ray, with a cluster, and where that is. What was started here is stopped at the end."""
    there = asked.address or os.environ.get("RAY_ADDRESS")
    if there is None and "ray" not in sys.modules:
        # whoever reaches the ports of a cluster may run anything there, and Ray reads this as it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"executor=ray needs Ray: pip install 'robustbench_local[ray]' ({error})") from error
    if ray.is_initialized():
        yield ray, "of this process"
        return
    common: dict[str, Any] = {"runtime_env": asked.runtime_env, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        context = ray.init(there, **common) if there else ray.init("local", **_own_cluster(grid, wanted), **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = f"no Ray cluster answers at {there}" if there else "Ray does not start here"
        raise RobustBenchError(f"{why}: {said(error)}") from error
    url, token = context.dashboard_url, os.environ.get("RAY_AUTH_TOKEN")
    asks = f" (it asks for the token {token})" if token and not there else ""
    where = f"http://{url}{asks}" if url else "there is none; pip install 'ray[default]' brings it"
    grid.progress.line(f"Ray's dashboard: {where}")
    try:
        yield ray, f"at {there}" if there else "of this machine"
    finally:
        ray.shutdown()


def _own_cluster(grid: Grid, wanted: Mapping[str, float]) -> dict[str, Any]:
    """What a cluster of this machine has: room for the workers; of GPUs and memory what there is."""
    workers = grid.config.workers or usual_workers(grid)
    room = {name: amount * workers for name, amount in wanted.items() if name not in ("GPU", "memory")}
    return {
        "num_cpus": max(1, math.ceil(room.pop("CPU", 1.0))),
        "resources": room,
        "object_store_memory": _STORE,
        "_node_ip_address": "127.0.0.1",
    }


@dataclass(frozen=True)
class _Sent:
    """A job of a group that is on its way, or the making of its model."""

    group: Group
    job: Job | None

    @property
    def label(self) -> str:
        return f"the model of {self.group}" if self.job is None else self.job.label


class _Sender:
    """Sends jobs, and takes in what comes back."""

    def __init__(self, grid: Grid, wanted: Mapping[str, float], ray: Any) -> None:
        self._ray = ray
        self.grid, self.running, self.shelf = grid, grid.running, Shelf(grid)
        self._wanted, self._token = wanted, f"ray-{secrets.token_hex(8)}"
        self._bench = Bench(grid, trains=False)
        self._left: dict[int, deque[Job]] = {}
        for job in in_order(grid):
            self._left.setdefault(job.group.place, deque()).append(job)
        self._flying: dict[Any, _Sent] = {}
        self._kept: dict[int, Any] = {}  # of each model the files of the cache, where Ray keeps them
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
        config = grid.config
        device = config.device if config.device == "auto" else grid.builder.device.type
        self._orders = Orders.of(grid, None, max(1, int(wanted.get("CPU", 1))), device).__dict__

    def run(self) -> None:
        """Until nothing is left to do. RobustBenchError where no worker can begin, or a disk is full."""
        looked = 0.0
        tokens = [folder / self._token for folder in (self.running.folder, cache_folder())]
        try:
            for token in tokens:
                token.parent.mkdir(parents=True, exist_ok=True)
                token.touch()
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
            for token in tokens:
                token.unlink(missing_ok=True)

    def _send(self) -> bool:
        """As many jobs as may be sent now. Whether anything is left to do."""
        machines = _machines(self._ray)
        # those for which there is no room wait at Ray, so that none stands idle; and a cluster that grows sees them
        most = self.grid.config.workers or 2 * sum(_room(self._wanted, machine) for machine in machines) or 1
        for place, jobs in tuple(self._left.items()):
            for sent in self._next(jobs, most - len(self._flying)):
                self._flying[self._task.remote(*self._packed(sent))] = sent
            if not jobs and not any(sent.group.place == place for sent in self._flying.values()):
                del self._left[place]
            if len(self._flying) >= most:
                break
        return bool(self._left)

    def _next(self, jobs: deque[Job], most: int) -> list[_Sent]:
        """Of a group's jobs those that can be sent; they are no more among its jobs then."""
        if not jobs or most <= 0:
            return []
        group = jobs[0].group
        at_work = [sent for sent in self._flying.values() if sent.group is group]
        keys = self._keys(group)
        if keys is None:
            return [] if at_work else [_Sent(group, None)]
        found: list[_Sent] = []
        while jobs and len(found) < most:
            job = jobs[0]
            if job.cell is None and (at_work or found):
                break
            jobs.popleft()
            key = None if job.cell is None else keys[job.cell]
            if self.running.is_audited(group.place) if job.cell is None else key is None or self._is_settled(key):
                continue
            found.append(_Sent(group, job))
        return found

    def _keys(self, group: Group) -> list[str | None] | None:
        """The names of its rows, once its model was made: elsewhere, unless what it learnt is here."""
        known = self.running.keys(group.place)
        if known is None and self.grid.builder.origin(group.spec) is not None:
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
        """What a worker needs: (the job, files of the results, files of the cache)."""
        folder, group = self.grid.store.folder, sent.group
        what = MODEL if sent.job is None else AUDIT if sent.job.cell is None else sent.job.cell
        untimed = self.running.building(group).rpartition("-")[0]
        orders, path = self._orders, [os.path.abspath(place) for place in sys.path]
        errand = Errand(
            orders, group.place, what, str(folder.absolute()), self._token, untimed=untimed, path=path, cwd=os.getcwd()
        )
        files = [*(folder / RUNNING / "deaths").glob("*"), *(folder / RUNNING / "models").glob(f"*-{group.place}*")]
        if what == AUDIT:
            keys = [key for key in self.running.keys(group.place) or () if key]
            files += [path for key in keys for path in (folder / "rows").glob(f"{key}.*")]
            files += [path for path in [folder / PACKED] if path.exists()]
        if group.place not in self._kept:
            kept = self.grid.builder.kept(group.spec)
            if not kept:
                return errand, _contents(folder, files), {}
            self._kept[group.place] = self._ray.put(_contents(cache_folder(), kept))
        return errand, _contents(folder, files), self._kept[group.place]

    def _came_back(self, reference: Any, sent: _Sent) -> None:
        try:
            report: Report = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise RobustBenchError(
                f"a worker of Ray cannot begin with {sent.label}: {said(error.cause)}. robustbench_local must be"
                " installed on every machine of the cluster, in the same version"
            ) from error
        except self._ray.exceptions.RayError as error:  # the worker is lost, or its machine
            death = Death(f"the loss of its worker of Ray ({type(error).__name__})")
            report = Report([], death=death, doing=self._name(sent))
        for line in report.lines:
            self.grid.progress.line(line)
        if report.wrong:
            raise RobustBenchError(report.wrong)
        write(self.grid.store.folder, report.results)
        for name, content in report.kept.items():
            if not (cache_folder() / name).exists():
                write(cache_folder(), {name: content})
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
            self._left[sent.group.place].appendleft(sent.job)

    def _ended(self, sent: _Sent) -> None:
        """What its deaths meant, where the worker that ended the job did not see this folder."""
        name = self._name(sent)
        if not self.running.deaths.of(name):
            return
        row = None if sent.job is None or sent.job.cell is None else self.shelf.settled(name)
        if row is not None and row.stays:
            self.running.deaths.forget(name)
        else:
            self.running.deaths.came_through(name)

    def _name(self, sent: _Sent) -> str:
        """Of what a worker is at: as its pulse says it."""
        keys = self.running.keys(sent.group.place)
        if sent.job is None or keys is None:
            return self.running.building(sent.group)
        return self.running.name(sent.job) if sent.job.cell is None else keys[sent.job.cell] or ""


def _contents(folder: Path, files: Sequence[Path]) -> Files:
    found: Files = {}
    for file in files:
        with suppress(OSError):  # it is there no more
            found[file.relative_to(folder).as_posix()] = file.read_bytes()
    return found
