"""A job done on another machine, in a process of its own: one that is kept, with its models, for the next job.

Whoever calls this there (a worker of Ray) loads no torch, and outlives whatever a plug-in does to the process. The
results are written where the sender reads them, if this machine sees that folder; otherwise they are sent back.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.child import command, of_worker
from robustbench_local.core.errors import StoreError
from robustbench_local.grids.deaths import Death
from robustbench_local.grids.executors.endings import how_it_ended, last_words
from robustbench_local.grids.executors.limits import Limits
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.claims import Claims
from robustbench_local.storage.files import whole_file

MODEL, AUDIT = "model", "audit"  # what is asked for, besides the place of a cell
Files = dict[str, bytes]  # by path below a folder, with "/"
RUNNING = "running"
_OWN = ("claims", "pulses", "logs")  # in RUNNING: what concerns one machine alone
_CHILD = "robustbench_local.grids.executors.served"
_HOMES = "robustbench-"  # how the folders begin of processes that do not see the results
_STALE = 24 * 3600.0  # seconds
_LOOK = 0.5  # seconds between two looks at a process that says nothing


@dataclass(frozen=True)
class Errand:
    """A job, and all that is needed to do it elsewhere.

    orders: of child.py. group: its place. what: MODEL, AUDIT or the place of a cell. rows: start and stop of the images
    of a cell, None for all. folder: of the results, as their owner sees it. token: a file of that name is in it and in
    the cache, by which they are known. untimed: how the names begin of what may take any time. path, cwd: of the
    owner's process.
    """

    orders: dict[str, Any]
    group: int
    what: int | str
    rows: tuple[int, int] | None
    folder: str
    token: str
    untimed: str
    path: list[str]
    cwd: str


@dataclass(frozen=True)
class Report:
    """How it went. lines: said meanwhile. results, kept: files for the folder and for the cache of whoever asked.

    death: what ended the process, if anything did, and doing: the name of what it was at then. wrong: an error that
    stops the whole grid.
    """

    lines: list[str]
    results: Files = field(default_factory=dict)
    kept: Files = field(default_factory=dict)
    death: Death | None = None
    doing: str = ""
    wrong: str | None = None


class Told:
    """A process that does what it is told."""

    def __init__(self, orders: dict[str, Any], folder: Path, cwd: str | None) -> None:
        self._config = GridConfig(**orders["config"])
        self._limits = Limits.of(self._config)
        self._complained = folder / RUNNING / "logs" / f"{secrets.token_hex(8)}.err"
        self._complained.parent.mkdir(parents=True, exist_ok=True)
        with open(self._complained, "wb") as complaints:
            self.process = subprocess.Popen(
                command(_CHILD),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=of_worker(orders["threads"]),
                cwd=cwd,
            )
        self._unread = b""
        self._tell(orders)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def do(self, job: dict[str, Any], doing: Callable[[], str], untimed: str) -> Report:
        """Until the job is done, or the process ended. doing: the name of what it is at."""
        self._tell(job)
        lines: list[str] = []
        at, since = "", time.monotonic()
        ended: Death | None = None
        with selectors.DefaultSelector() as waiting:
            assert self.process.stdout is not None
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                for answer in self._answers(waiting):
                    if answer is None:
                        code = self.process.wait()
                        death = ended or Death(how_it_ended(code), last_words(self._complained))
                        self.end()
                        return Report(lines, death=death, doing=doing() or at)
                    if "line" in answer:
                        lines.append(answer["line"])
                    elif "wrong" in answer:
                        self.end()
                        return Report(lines, wrong=answer["wrong"])
                    else:
                        return Report(lines, kept=_read(cache_folder(), map(Path, answer["done"])))
                now, name = time.monotonic(), doing()
                if name != at:
                    at, since = name, now
                if ended is None and (ended := self._too_much(bool(at) and not at.startswith(untimed), since)):
                    self.process.kill()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]  # both were asked for
        self._complained.unlink(missing_ok=True)

    def _tell(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # dead already: seen soon
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def _answers(self, waiting: selectors.BaseSelector) -> Iterable[dict[str, Any] | None]:
        """Those that came by now; None at the end of all."""
        if not waiting.select(_LOOK):
            return
        assert self.process.stdout is not None
        part = os.read(self.process.stdout.fileno(), 65536)
        *lines, self._unread = (self._unread + part).split(b"\n")
        yield from map(json.loads, lines)
        if not part:
            yield None

    def _too_much(self, timed: bool, since: float) -> Death | None:
        limit = self._limits.seconds
        if timed and limit is not None and time.monotonic() - since > limit:
            return Death(f"it took longer than timeout={self._config.timeout}", timed_out=True)
        greedy = self._limits.greedy([self.process.pid])
        return None if greedy is None else Death(greedy[1])


_told: dict[str, Told] = {}  # at most one, kept from one call to the next


def carry_out(errand: Errand, results: Files, kept: Files) -> Report:
    """Do the job. results, kept: what it needs of the owner's folder and cache, for one who sees neither."""
    sys.path[:] = dict.fromkeys([*sys.path, *errand.path])
    home = Path(errand.folder)
    own, cached = _sees(home / RUNNING, errand.token), _sees(cache_folder(), errand.token)
    folder = home if own else Path(tempfile.gettempdir(), f"{_HOMES}{errand.token}-{os.getpid()}", home.name)
    if not own:
        write(folder, results)
    if not cached:
        write(cache_folder(), kept, anew=False)
    before = {} if own else _stamps(folder)
    told = _ready(
        {**errand.orders, "config": {**errand.orders["config"], "results": str(folder.parent)}}, folder, errand.cwd
    )
    claims = Claims(folder / RUNNING)

    def doing() -> str:
        pulse = claims.pulse_of(told.process.pid)
        return pulse.doing if pulse else ""

    report = told.do({"group": errand.group, "what": errand.what, "rows": errand.rows}, doing, errand.untimed)
    if cached:
        report = replace(report, kept={})
    if own:
        return report
    now = _stamps(folder)
    report = replace(report, results=_read(folder, [path for path in now if now[path] != before.get(path)]))
    for path in now:
        path.unlink(missing_ok=True)
    return report


def write(folder: Path, files: Files, anew: bool = True) -> None:
    """Those that were sent; anew: also where a file is there. StoreError where the disk is full, or a name leads out of
    the folder.
    """
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"a file was sent as {name!r}: it must lie below {folder}")
        if anew or not (folder / path).exists():
            with whole_file(folder / path) as file:
                file.write(content)


def _ready(orders: dict[str, Any], folder: Path, cwd: str) -> Told:
    """The process that was kept, if it was for these very orders and devices; else a new one."""
    about = json.dumps([orders, os.environ.get("CUDA_VISIBLE_DEVICES")])
    for key, told in list(_told.items()):
        if key != about or not told.lives:
            told.end()
            del _told[key]
    if about not in _told:
        _sweep()
        _told[about] = Told(orders, folder, cwd if Path(cwd).is_dir() else None)
    return _told[about]


def _sweep() -> None:
    """Remove what processes left that were killed, and whose results were sent long ago or never will be."""
    for home in Path(tempfile.gettempdir()).glob(f"{_HOMES}*"):
        with suppress(OSError):
            if (
                time.time() - home.stat().st_mtime > _STALE
                and not Path(f"/proc/{home.name.rpartition('-')[2]}").exists()
            ):
                shutil.rmtree(home)


def _sees(folder: Path, token: str) -> bool:
    """Whether this is the folder in which the token was put."""
    return (folder / token).exists()


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files below it that are sent, and by what a change in one is seen."""
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and not (inside[0] == RUNNING and inside[1] in _OWN) and not path.name.startswith("."):
            status = path.stat()
            found[path] = status.st_mtime_ns, status.st_size
    return found


def _read(folder: Path, files: Iterable[Path]) -> Files:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
