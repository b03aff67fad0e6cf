"""Kill the workers and the master of a grid at random instants, and see that it ends as if nothing had happened.

    python tests/helpers/storm.py FOLDER KILLS SEED SECONDS [spawned]

A round is one grid, struck whenever it took SECONDS of the processors' time, on average, until it ends; rounds go on
until KILLS are reached. Everything is imported once. The master is a fork, started again whenever it ends early; its
workers are forks of the master (forked.py) or, where asked for, spawned as a user's are. Linux alone: whoever outlives
its master becomes this process's child, so that none is overlooked.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustbench_local.cli.main import main
from robustbench_local.config import plugins
from robustbench_local.grids.executors import local
from robustbench_local.storage import claims
from tests.helpers.forked import Forked, in_fork
from tests.helpers.outcomes import differences, outcome

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
)
TOYS = """
import torch
from torch import nn

def linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def other():
    return linear(1)
"""
GRID = """
data: mnist
source: bundled
n: 60
models: ["toys:linear", "toys:other"]
attacks: [fgsm, {pgd: {steps: 50}}, {pgd: {steps: 100}}, {pgd: {steps: 150}}, {pgd: {steps: 150, restarts: 2}}]
threats: ["linf:0.01", "l2:0.1"]
device: cpu
allow_chance: true
"""
WORKERS = 4
MASTERS = 0.05  # of the strikes
PATIENCE = 3.0  # seconds, instead of minutes, until a process that was stopped counts as gone
MOST = 300.0  # seconds that a round may take
_SUBREAPER = 36  # Linux's prctl: this process adopts the orphans among those that descend from it


class Storm:
    """counts: what was done to whom, and how masters ended."""

    def __init__(self, pause: float) -> None:
        self.pause, self.counts = pause, Counter[str]()
        self._expected: dict[str, Any] = {}
        self._stopped: dict[int, float] = {}  # processes, and when they are to go on

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.counts.items() if what.startswith(("SIGKILL", "SIGTERM")))

    def undisturbed(self) -> None:
        """What is to come out."""
        said = Path("undisturbed.said")
        code = os.waitpid(begun(["run", "grid=whole.yaml", "results=expected"], said), 0)[1]
        assert code == 0, said.read_text()
        self._expected = outcome(Path("expected/whole"))

    def round(self, name: str) -> list[str]:
        """One grid, struck until it ends -> what is wrong."""
        words = ["run", f"grid={name}.yaml", "executor=local", f"workers={WORKERS}"]
        said, began, due = Path(f"{name}.said"), time.monotonic(), self._next()
        master = begun(words, said)
        while True:
            reap(master)
            time.sleep(0.02)
            self._let_go_on()
            pid, status = os.waitpid(master, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                last = said.read_text(errors="replace")
                if code in (0, 1):
                    return self._wrong(name, code, last)
                self.counts["master ended: " + (last.splitlines()[-1] if code > 0 else signal.Signals(-code).name)] += 1
                master = begun(words, said)
            if time.monotonic() - began > MOST:
                return [f"no end after {MOST} s: {states(master)}", said.read_text(errors="replace")[-3000:]]
            if worked() > due:
                self._strike(master)
                due = self._next()

    def _next(self) -> float:
        return worked() + random.expovariate(1 / self.pause)

    def _strike(self, master: int) -> None:
        workers = [pid for pid, parent in descendants().items() if parent == master]
        if not workers:
            return
        at_master = random.random() < MASTERS
        victim = master if at_master else random.choice(workers)
        how = random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
        with suppress(ProcessLookupError):
            os.kill(victim, how)
            self.counts[f"{how.name} of {'the master' if at_master else 'a worker'}"] += 1
            if how is signal.SIGSTOP:
                self._stopped[victim] = time.monotonic() + random.expovariate(1 / PATIENCE)

    def _let_go_on(self) -> None:
        for pid, until in tuple(self._stopped.items()):
            if time.monotonic() > until:
                del self._stopped[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _wrong(self, name: str, code: int, said: str) -> list[str]:
        self._stopped.clear()
        found = [] if code == 0 else [f"exit code {code}", said[-3000:]]
        found += [line for line in said.splitlines() if "Traceback" in line or "counts as missing" in line]
        folder = Path("results") / name
        found += differences(self._expected, outcome(folder))
        if (folder / "running").exists():
            found.append(f"running is left: {sorted(map(str, (folder / 'running').rglob('*')))}")
        return found + left_behind()


def begun(words: Sequence[str], said: Path) -> int:
    """The process that runs the command; what it says goes to a file."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        with open(said, "ab") as out, open(os.devnull, "rb") as nothing:
            in_fork(lambda: sys.exit(main(words)), nothing.fileno(), out.fileno(), out.fileno())
    return child


def descendants() -> dict[int, int]:
    """{process: its parent} of all that descend from this one."""
    parents = {
        int(pid): int(fields[1]) for pid in os.listdir("/proc") if pid.isdecimal() and (fields := stat(int(pid)))
    }
    found: dict[int, int] = {}
    before = -1
    while len(found) != before:
        before = len(found)
        found |= {pid: parent for pid, parent in parents.items() if parent == os.getpid() or parent in found}
    return found


def stat(pid: int) -> list[str]:
    """From its state on; [] where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def worked() -> float:
    """Seconds of the processors' time that all took that descend from this one, those that ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(int(tick) for pid in descendants() for tick in stat(pid)[11:15])
    return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def states(master: int) -> list[str]:
    return [
        f"{pid} of {parent}{' (master)' if pid == master else ''}: {fields[0]}"
        for pid, parent in descendants().items()
        if (fields := stat(pid))
    ]


def reap(master: int) -> None:
    """Orphans that this process adopted, and that ended since."""
    for pid, parent in descendants().items():
        if parent == os.getpid() and pid != master:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def left_behind() -> list[str]:
    """Processes that did not end with their master."""
    until = time.monotonic() + 5
    while left := descendants():
        reap(0)
        if time.monotonic() > until:
            found = states(0)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return [f"processes are left: {found}"] if found else []
        time.sleep(0.01)
    return []


def strike(folder: Path, kills: int, seed: int, pause: float, spawned: bool) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    Path("toys.py").write_text(TOYS)
    Path("whole.yaml").write_text(GRID)
    random.seed(seed)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    claims.PATIENCE = local._STOPPED = PATIENCE
    if not spawned:
        setattr(subprocess, "Popen", Forked)  # noqa: B010  (mypy refuses to assign to it)
    for module in FIRST:
        importlib.import_module(module)
    plugins.entry_points = functools.cache(plugins.entry_points)  # most of what opening a grid takes
    storm = Storm(pause)
    storm.undisturbed()
    rounds = 0
    while storm.kills < kills:
        name = f"round{rounds}"
        Path(f"{name}.yaml").write_text(GRID)
        began = time.monotonic()
        wrong = storm.round(name)
        assert not wrong, f"round {rounds}, after {dict(storm.counts)}:\n" + "\n".join(wrong)
        shutil.rmtree(f"results/{name}")
        rounds += 1
        print(f"round {rounds}: {storm.kills} kills so far, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{storm.kills} kills in {rounds} rounds of {WORKERS} workers:", dict(sorted(storm.counts.items())))


if __name__ == "__main__":
    place, most, dice, seconds, *how = sys.argv[1:]
    strike(Path(place), int(most), int(dice), float(seconds), how == ["spawned"])
