"""Commands, and workers of executor=local, as forks of a process that imported all they need: so that thousands can be
started, and ended. Linux alone.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from robustbench_local.cli.main import main
from robustbench_local.grids.executors import child, local
from robustbench_local.storage import claims
from tests.helpers.killing import TOYS as MODELS
from tests.helpers.packages import installed

FIRST = (
    "robustbench_local.attacks.best",
    "robustbench_local.attacks.fgsm",
    "robustbench_local.attacks.pgd",
    "robustbench_local.defenses.none",
    "robustbench_local.grids.run",
    "robustbench_local.grids.executors.inline",
    "robustbench_local.cli.preview",
    "robustbench_local.report.corruption_text",
    "robustbench_local.report.write",
    "matplotlib.figure",
)
TOYS = f"""{MODELS}
from robustbench_local.core.attack import Attack

class Fails(Attack):
    def __call__(self, oracle, x, y, threat, draws):
        raise RuntimeError("this one never works")

    def cost(self, classes, norm=None):
        return 1, 0
"""
PATIENCE = 3.0  # seconds, instead of minutes, until a process that was stopped counts as gone
_SUBREAPER = 36  # Linux's prctl: this process adopts the orphans among those that descend from it


def prepare(folder: Path, spawned: bool = False) -> None:
    """Work in that folder, with models of toys.py. spawned: workers are processes of their own, as a user's are."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    Path("toys.py").write_text(TOYS)
    installed(folder, "toys", "[robustbench_local.attacks]\nfails = toys:Fails\n")
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    claims.PATIENCE = local._STOPPED = PATIENCE
    claims.BEAT = 0.5
    if not spawned:
        setattr(local, "subprocess", SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE))  # noqa: B010
    for module in FIRST:
        importlib.import_module(module)


class Forked:
    """As much of subprocess.Popen as the executor asks for; what it runs is the executor's own worker."""

    def __init__(
        self, command: object, *, stdout: IO[bytes], stderr: IO[bytes], env: Mapping[str, str], **_: Any
    ) -> None:
        self.returncode: int | None = None
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            in_fork(child.main, read, stdout.fileno(), stderr.fileno())
        os.close(read)
        self.stdin = os.fdopen(write, "wb")

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int | None:
        return self._waited(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def in_fork(main: Callable[[], object], read: int, said: int, complained: int) -> None:
    """What a fork does from its first line on, as a process of its own that was just started."""
    code = 1
    try:
        os.setsid()
        for place, handle in enumerate((read, said, complained)):
            os.dup2(handle, place)
        os.closerange(3, 1024)  # the ends of other workers' pipes
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def begun(words: Sequence[str], said: Path, before: Callable[[], object] = lambda: None) -> int:
    """The process that runs the command, after something else; what it says goes to a file."""
    sys.stdout.flush()
    process = os.fork()
    if not process:
        with open(said, "ab") as out, open(os.devnull, "rb") as nothing:
            before()
            in_fork(lambda: sys.exit(main(words)), nothing.fileno(), out.fileno(), out.fileno())
    return process


def ended(process: int) -> int:
    """Its exit code, or less than 0 the signal, when it ends."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def descendants() -> dict[int, int]:
    """{process: its parent} of all that descend from this one."""
    processes = map(int, filter(str.isdecimal, os.listdir("/proc")))
    parents = {pid: int(fields[1]) for pid in processes if (fields := stat(pid))}
    found: dict[int, int] = {}
    before = -1
    while len(found) != before:
        before = len(found)
        found |= {pid: parent for pid, parent in parents.items() if parent == os.getpid() or parent in found}
    return found


def stat(process: int) -> list[str]:
    """From its state on; [] where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


def worked() -> float:
    """Seconds of the processors' time that all took that descend from this one, those that ended included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(int(tick) for pid in descendants() for tick in stat(pid)[11:15])
    return before.ru_utime + before.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def states() -> list[str]:
    return [f"{pid} of {parent}: {fields[0]}" for pid, parent in descendants().items() if (fields := stat(pid))]


def reap(but: Sequence[int] = ()) -> None:
    """Orphans that this process adopted, and that ended since."""
    for pid, parent in descendants().items():
        if parent == os.getpid() and pid not in but:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def left_behind() -> list[str]:
    """Processes that did not end with their master, and are ended now."""
    until = time.monotonic() + 5
    while left := descendants():
        reap()
        if time.monotonic() > until:
            found = states()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            return [f"processes are left: {found}"] if found else []
        time.sleep(0.01)
    return []
