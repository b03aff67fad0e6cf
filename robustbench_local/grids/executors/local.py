"""By several processes of this machine, each of which takes the next job that nobody is at.

A worker that dies is replaced, and costs nothing but the job that it was at, which is tried again; one that hangs, or
takes the machine's memory, is ended. What it was at is known from its pulse (storage/claims.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from robustbench_local.core.child import command, of_worker
from robustbench_local.core.device import devices
from robustbench_local.core.errors import RobustBenchError, StoreError
from robustbench_local.grids.deaths import MOST, Death
from robustbench_local.grids.executors.child import WRONG, Orders
from robustbench_local.grids.executors.endings import how_it_ended, last_words, text
from robustbench_local.grids.executors.limits import Limits
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.status import Watch
from robustbench_local.storage.claims import Pulse
from robustbench_local.storage.files import cause
from robustbench_local.storage.owner import is_stopped

_POLL = 0.1  # seconds between two looks at the workers
_LOOK = 2.0  # seconds between two looks at their memory, and at what is done
_STOPPED = 60.0  # seconds after which a worker that somebody stopped is replaced
_ASLEEP = "having been stopped for a minute"
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")  # where the process was at no job
_CHILD = "robustbench_local.grids.executors.child"


def run(grid: Grid) -> None:
    """Every job of the grid that is not done, or a share "i/N" of its cells, by one worker."""
    share = grid.config.worker
    Supervisor(grid, 1 if share else grid.config.workers or usual_workers(grid), share).run()


def usual_workers(grid: Grid) -> int:
    """One for each device of the grid's kind; on CPUs one for each core."""
    device = grid.builder.device
    if device.type == "cpu":
        return cores()
    return 1 if device.index is not None else sum(name.startswith(device.type) for name in devices())


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Worker:
    """A process, and what is known of it. heard: how far its words were passed on, in bytes.

    doing, since: what it is at, and since when, by this process's clock; doing is None before it began. stopped: since
    when it is (SIGSTOP). ended: why this process ended it.
    """

    place: int
    process: subprocess.Popen[bytes]
    said: Path
    complained: Path
    heard: int = 0
    doing: str | None = None
    since: float = 0.0
    stopped: float | None = None
    ended: Death | None = None


class Supervisor:
    """Starts workers, replaces those that die, and passes on what they say."""

    def __init__(self, grid: Grid, workers: int, share: str | None = None) -> None:
        self.grid, self.share, self.running = grid, share, grid.running
        self.limits = Limits.of(grid.config)
        given = os.environ.get("OMP_NUM_THREADS", "")
        self._threads = int(given) if given.isdecimal() and int(given) else max(1, cores() // workers)
        self._devices = self._shared_out(workers)
        self._workers: list[Worker] = []
        self._early = 0  # workers that died at no job since one took a job
        self._watch = Watch(grid.store, self.running)

    def run(self) -> None:
        """Until every worker finds nothing left to do. RobustBenchError where none can work, or the disk is full."""
        looked = 0.0
        try:
            for place in range(len(self._devices)):
                self._begin(place)
            while self._workers:
                for worker in tuple(self._workers):
                    self._look_after(worker)
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    self._limit_memory()
                    self._show()
                time.sleep(_POLL)
        finally:
            self._end_all()

    def _shared_out(self, workers: int) -> list[str]:
        """The device of each worker: several of a kind get one each, in turn."""
        device = self.grid.builder.device
        there = [name for name in devices() if name.startswith(device.type)]
        if device.type == "cpu" or device.index is not None or not there:
            return [str(device)] * workers
        return [there[place % len(there)] for place in range(workers)]

    def _begin(self, place: int) -> None:
        logs = self.running.folder / "logs"
        stem = f"{self.grid.start}-{os.getpid()}-{place}"
        said, complained = logs / f"{stem}.out", logs / f"{stem}.err"
        orders = Orders.of(self.grid, self.share, self._threads, self._devices[place])
        try:
            logs.mkdir(parents=True, exist_ok=True)
            with open(said, "wb") as out, open(complained, "wb") as err:
                process = subprocess.Popen(
                    command(_CHILD),
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    env=of_worker(self._threads),
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others
                )
        except OSError as error:
            raise StoreError(f"cannot start a worker, with its words in {logs}: {cause(error)}") from error
        worker = Worker(place, process, said, complained, since=time.monotonic())
        self._workers.append(worker)
        self.running.claims.forget(process.pid)  # of an earlier process of that number
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # dead already: seen soon
            process.stdin.write(json.dumps(orders.__dict__).encode() + b"\n")
            process.stdin.flush()

    def _look_after(self, worker: Worker) -> None:
        code = worker.process.poll()
        self._pass_on(worker, whole=code is not None)
        pulse = self._pulse(worker)
        doing = pulse.doing if pulse else worker.doing
        if doing != worker.doing:
            worker.doing, worker.since = doing, time.monotonic()
            if doing:
                self._early = 0
        if code is None:
            self._limit_time(worker)
            return
        self._workers.remove(worker)
        worker.process.stdin.close()  # type: ignore[union-attr]  # it was asked for
        if code == WRONG:
            raise RobustBenchError(last_words(worker.complained) or "a worker stopped without a word")
        if code:
            self._died(worker, code)
        self.running.claims.forget(worker.process.pid)
        if code:
            self._begin(worker.place)

    def _died(self, worker: Worker, code: int) -> None:
        death = worker.ended or Death(how_it_ended(code), last_words(worker.complained))
        self.grid.progress.line(f"worker {worker.place} died of {death.how}: another one takes its place")
        if worker.ended is None:
            self._note(worker, death)
        outside = death.how in (*_FROM_OUTSIDE, _ASLEEP)
        if worker.doing is None or (not worker.doing and not outside):
            self._early += 1
            if self._early >= MOST * (len(self._devices) if outside else 1):
                raise RobustBenchError(f"no worker can begin: {death.how}. {death.last_words}")

    def _limit_time(self, worker: Worker) -> None:
        now, limit = time.monotonic(), self.limits.seconds
        if is_stopped(worker.process.pid):
            worker.stopped = worker.stopped or now
            if now - worker.stopped > _STOPPED:
                self._end(worker, Death(_ASLEEP))
            return
        if worker.stopped is not None:
            worker.since += now - worker.stopped  # which was not its own time
            worker.stopped = None
        if limit is not None and self.running.is_limited(worker.doing or "") and now - worker.since > limit:
            self._end(worker, Death(f"timeout={self.grid.config.timeout}", timed_out=True))

    def _limit_memory(self) -> None:
        processes = {worker.process.pid: worker for worker in self._workers}
        if found := self.limits.greedy(list(processes)):
            self._end(processes[found[0]], Death(found[1]))

    def _end(self, worker: Worker, death: Death) -> None:
        """Noted first: whoever takes over its job must know."""
        if worker.ended is None:
            worker.ended = death
            self._note(worker, death)
        worker.process.kill()

    def _note(self, worker: Worker, death: Death) -> None:
        if worker.doing and death.how != _ASLEEP:
            self.running.deaths.note(worker.doing, death)
        if not worker.doing and death.how in _FROM_OUTSIDE:
            self.running.deaths.note_idle()

    def _pulse(self, worker: Worker) -> Pulse | None:
        return self.running.claims.pulse_of(worker.process.pid)

    def _pass_on(self, worker: Worker, whole: bool) -> None:
        """The lines that it said since; whole: the last one too, though it does not end."""
        said = text(worker.said, worker.heard)
        end = len(said) if whole else said.rfind("\n") + 1
        worker.heard += len(said[:end].encode(errors="surrogateescape"))
        for line in said[:end].splitlines():
            self.grid.progress.line(line)

    def _show(self) -> None:
        status = self._watch.look()
        self.grid.progress.advance(status.in_short(), status.share)
        self.grid.progress.rest()
        for worker in self._workers:
            if pulse := self._pulse(worker):
                self.grid.progress.lane(worker.place).advance(pulse.what, pulse.share)

    def _end_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            with suppress(OSError):
                worker.process.stdin.close()  # type: ignore[union-attr]
            self._pass_on(worker, whole=True)
        self._workers = []
