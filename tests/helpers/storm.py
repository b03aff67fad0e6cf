"""Kill the workers and the master of a grid at random instants, and see that it ends as if nothing had happened.

    python tests/helpers/storm.py FOLDER KILLS SEED SECONDS [spawned | torn]

A round is one grid, struck whenever it took SECONDS of the processors' time, on average, until it ends; rounds go on
until KILLS are reached. Everything is imported once. The master is a fork, started again whenever it ends early; its
workers are forks of the master (forked.py) or, where asked for, spawned as a user's are. Linux alone: whoever outlives
its master becomes this process's child, so that none is overlooked. torn: rows are written as many programs write
files, which must be found out.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from robustbench_local.storage import store
from tests.helpers.forked import PATIENCE, begun, descendants, ended, left_behind, prepare, reap, states, worked
from tests.helpers.outcomes import differences, outcome

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
SHORT = 50  # kills, up to which a round has a third of the cells
WORKERS = 4
MASTERS = 0.05  # of the strikes
GIVEN_UP = "workers died of it"  # said of a job that was hit again and again: a user then asks for another try
MOST = 300.0  # seconds that a round may take


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
        assert ended(begun(["run", "grid=whole.yaml", "results=expected"], said)) == 0, said.read_text()
        self._expected = outcome(Path("expected/whole"))

    def round(self, name: str) -> list[str]:
        """One grid, struck until it ends -> what is wrong."""
        words = ["run", f"grid={name}.yaml", "executor=local", f"workers={WORKERS}"]
        said, began, due = Path(f"{name}.said"), time.monotonic(), self._next()
        heard, master = 0, begun(words, said)
        while True:
            reap([master])
            time.sleep(0.02)
            self._let_go_on()
            pid, status = os.waitpid(master, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                whole = said.read_text(errors="replace")
                last, heard = whole[heard:], len(whole)
                if code in (0, 1) and GIVEN_UP not in last:
                    return self._wrong(name, code, whole)
                how = GIVEN_UP if code in (0, 1) else last.splitlines()[-1] if code > 0 else signal.Signals(-code).name
                self.counts[f"start ended: {how}"] += 1
                master = begun([*words, "retry=true"], said)
            if time.monotonic() - began > MOST:
                return [f"no end after {MOST} s: {states()}", said.read_text(errors="replace")[-3000:]]
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


@contextmanager
def torn_file(path: Path) -> Iterator[BinaryIO]:
    """In place, bit by bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    yield whole
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(whole.getvalue()), 512):
            file.write(whole.getvalue()[start : start + 512])
            time.sleep(0.01)


def strike(folder: Path, kills: int, seed: int, pause: float, how: str) -> None:
    prepare(folder, how == "spawned")
    if how == "torn":
        setattr(store, "whole_file", torn_file)  # noqa: B010  (mypy refuses to assign to it)
    grid = GRID + f"seeds: {[0] if kills <= SHORT else [0, 1, 2]}\n"
    Path("whole.yaml").write_text(grid)
    random.seed(seed)
    storm = Storm(pause)
    storm.undisturbed()
    rounds = 0
    while storm.kills < kills:
        name = f"round{rounds}"
        Path(f"{name}.yaml").write_text(grid)
        began = time.monotonic()
        wrong = storm.round(name)
        assert not wrong, f"round {rounds}, after {dict(storm.counts)}:\n" + "\n".join(wrong)
        shutil.rmtree(f"results/{name}")
        rounds += 1
        print(f"round {rounds}: {storm.kills} kills so far, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{storm.kills} kills in {rounds} rounds of {WORKERS} workers:", dict(sorted(storm.counts.items())))


if __name__ == "__main__":
    place, most, dice, seconds, way = [*sys.argv[1:], ""][:5]
    strike(Path(place), int(most), int(dice), float(seconds), way)
