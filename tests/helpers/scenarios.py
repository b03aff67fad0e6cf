"""What may befall a running grid but kills; after each, the same command ends as if nothing had happened.

    python tests/helpers/scenarios.py SCENARIO FOLDER SEED CASES

Each scenario is a function below. Commands are forks (forked.py), as are the workers of executor=local.
"""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from robustbench_local.storage import files
from tests.helpers.forked import begun, ended, left_behind, prepare, stat, states
from tests.helpers.outcomes import differences, outcome

GRID: dict[str, Any] = {
    "data": "mnist",
    "source": "bundled",
    "n": 24,
    "models": ["toys:linear", "toys:other"],
    "attacks": ["fgsm", {"pgd": {"steps": 40}}],
    "threats": ["linf:0.01"],
    "device": "cpu",
    "allow_chance": True,
}
EXECUTORS = {"inline": ["executor=inline"], "local": ["executor=local", "workers=3"]}
MOST = 200.0  # seconds that a command may take
FOLDER = Path("results/toy")


class Case:
    """The command, whatever befalls it, and what comes out in the end."""

    def __init__(self, failing: bool = False) -> None:
        self.code = int(failing)
        attacks = [*GRID["attacks"], *["fails"] * failing]
        Path("toy.yaml").write_text(json.dumps({**GRID, "attacks": attacks}))
        code, said = self.run("results=expected")
        assert code == self.code, said
        self.expected = outcome(Path("expected/toy"))

    def start(self, *words: str, before: Callable[[], object] = lambda: None) -> tuple[int, Path]:
        said = Path(f"{time.monotonic_ns()}.said")
        return begun(["run", "grid=toy.yaml", *words], said, before), said

    def run(self, *words: str, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
        return self.end(*self.start(*words, before=before))

    def end(self, process: int, said: Path, meanwhile: Callable[[], object] = lambda: None) -> tuple[int, str]:
        """The exit code, and what was said."""
        began = time.monotonic()
        while stat(process)[:1] != ["Z"]:
            assert time.monotonic() - began < MOST, f"no end: {states()}\n{said.read_text(errors='replace')}"
            meanwhile()
            time.sleep(0.02)
        return ended(process), said.read_text(errors="replace")

    def check(self, what: str, code: int, said: str) -> None:
        """It ended right, in the first place."""
        wrong = [] if code == self.code else [f"exit code {code}"]
        wrong += [line for line in said.splitlines() if "Traceback" in line]
        wrong += differences(self.expected, outcome(FOLDER)) if (FOLDER / "table.md").exists() else ["no table"]
        wrong += left_behind()
        wrong += ["running is left"] if (FOLDER / "running").exists() else []
        assert not wrong, "\n".join([what, *wrong, said])

    def again(self, what: str) -> None:
        """The same command, undisturbed."""
        self.check(f"{what}, and again", *self.run())
        shutil.rmtree(FOLDER, ignore_errors=True)


def full_disk(case: Case, cases: int) -> str:
    """The k-th call that writes, and all after it, find the disk full; for each k in turn."""
    codes = []
    count = mmap.mmap(-1, 8)  # of the calls of all processes
    for name, words in EXECUTORS.items():
        count[:] = bytes(8)
        case.run(*words, before=partial(refuse, count, 10**9, errno.ENOSPC))
        shutil.rmtree(FOLDER)
        calls = int.from_bytes(count[:], "little")
        for place in range(1, calls + 1, max(1, calls // cases)):
            count[:] = bytes(8)
            code, said = case.run(*words, before=partial(refuse, count, place, errno.ENOSPC))
            what = f"{name}, disk full from write {place} of {calls} on"
            assert code in (0, 2) and "Traceback" not in said, f"{what}: exit code {code}\n{said}"
            assert code == 0 or "the disk is full" in said, f"{what}:\n{said}"
            assert not left_behind(), what
            case.again(what)
            codes.append(code)
    return f"{codes.count(2)} of {len(codes)} ended early, the others did without the disk"


def refuse(count: mmap.mmap, last: int, why: int) -> None:
    """In this process and its forks: the call `last`, and all after it, fail."""

    def limited(call: Callable[..., Any]) -> Callable[..., Any]:
        def limited_call(*args: Any, **kwargs: Any) -> Any:
            place = int.from_bytes(count[:], "little") + 1
            count[:] = place.to_bytes(8, "little")
            if place >= last:
                raise OSError(why, os.strerror(why))
            return call(*args, **kwargs)

        return limited_call

    for owner, name in (
        (os, "fsync"),
        (os, "replace"),
        (os, "link"),
        (Path, "mkdir"),
        (Path, "write_bytes"),
        (Path, "write_text"),
        (files, "_created"),
    ):
        setattr(owner, name, limited(getattr(owner, name)))


def read_only(case: Case, cases: int) -> str:
    """The folder may not be written to from the first call on, or from one that comes later."""
    count = mmap.mmap(-1, 8)
    for name, words in EXECUTORS.items():
        for place in random.sample(range(1, 20), cases):
            count[:] = bytes(8)
            code, said = case.run(*words, before=partial(refuse, count, place, errno.EROFS))
            what = f"{name}, read-only from write {place} on"
            assert code == 2 and "the folder is read-only" in said and "Traceback" not in said, (
                f"{what}: {code}\n{said}"
            )
            assert not left_behind(), what
            case.again(what)
    return "each was named"


def vanishing(case: Case, cases: int) -> str:
    """The results are removed while they are made, all or what workers know of each other."""
    removed = 0
    for place in range(cases):
        name = random.choice(list(EXECUTORS))
        gone = random.choice((FOLDER.parent, FOLDER, FOLDER / "rows", FOLDER / "running", FOLDER / "running/claims"))
        due = time.monotonic() + random.uniform(0.2, 3)

        def meanwhile(gone: Path = gone) -> None:
            nonlocal due, removed
            if time.monotonic() > due:
                due = time.monotonic() + random.uniform(1, 9)
                removed += gone.exists()
                shutil.rmtree(gone, ignore_errors=True)

        what = f"case {place}: {gone} removed under {name}"
        code, said = case.end(*case.start(*EXECUTORS[name]), meanwhile)
        assert code in (0, 2) and "Traceback" not in said, f"{what}: exit code {code}\n{said}"
        assert not left_behind(), what
        case.again(what)
    return f"{removed} removed"


def two_masters(case: Case, cases: int) -> str:
    """Two starts of the command at once; one of the cells fails whoever does it."""
    pairs: Sequence[tuple[list[str], list[str]]] = (
        (EXECUTORS["inline"], EXECUTORS["local"]),
        (EXECUTORS["local"], EXECUTORS["local"]),
        (EXECUTORS["inline"], EXECUTORS["inline"]),
        (["worker=0/2"], ["worker=1/2"]),
        (["worker=0/2"], ["worker=0/2"]),  # the other half is nobody's
    )
    for place, pair in enumerate(itertools.islice(itertools.cycle(pairs), cases)):
        both = [case.start(*words) for words in pair]
        ends = [case.end(*each) for each in both]
        what = f"case {place}: {pair}"
        said = "\n-----\n".join(words for _, words in ends)
        assert {code for code, _ in ends} <= {0, case.code} and "Traceback" not in said, f"{what}: {said}"
        measured = said.count(": clean ")
        assert measured <= len(GRID["models"]) * len(GRID["attacks"]), f"{what}: done twice\n{said}"
        if pair != pairs[-1]:
            case.check(what, max(code for code, _ in ends), "")
        case.again(what)
    return "each cell was done once"


def clocks(case: Case, cases: int) -> str:
    """Each process's clock jumps by days, both ways, several times a second."""
    for place in range(cases):
        words = EXECUTORS[("local", "inline")[place % 2]]
        case.check(f"case {place}: {words}", *case.run(*words, before=jump))
        case.again(f"case {place}")
    return "nobody was fooled"


def jump() -> None:
    real = time.time
    seed = random.random()

    def jumping() -> float:
        now = real()
        return now + 86400 * 9 * random.Random(f"{seed} {os.getpid()} {int(now * 5)}").uniform(-1, 1)

    time.time = jumping


def out_of_memory(case: Case, cases: int) -> str:
    """Processes get so many MiB of addresses more than they have: cells fail, workers die, or nothing happens."""
    codes = []
    for place in range(cases):
        name = ("local", "inline")[place % 2]
        more = random.choice((0, 1, 2, 5, 10, 20, 40, 80, 160))
        code, said = case.run(*EXECUTORS[name], before=partial(bound, more))
        what = f"case {place}: {name} with {more} MiB more"
        assert code in (0, 1, 2), f"{what}: exit code {code}\n{said}"
        assert not left_behind(), what
        codes.append(code)
        case.check(f"{what}, and again", *case.run("retry=true"))
        shutil.rmtree(FOLDER)
    return f"exit codes {codes}"


def bound(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def damage(case: Case, cases: int) -> str:
    """Files by which workers know of each other are damaged while they work."""
    hit: dict[str, int] = {}
    for place in range(cases):
        due = time.monotonic() + 0.3

        def meanwhile() -> None:
            nonlocal due
            if time.monotonic() > due:
                due = time.monotonic() + random.uniform(0, 0.3)
                there = [path for path in (FOLDER / "running").rglob("*") if path.is_file()]
                if there and damaged(victim := random.choice(there)):
                    hit[victim.parent.name] = hit.get(victim.parent.name, 0) + 1

        name = ("local", "inline")[place % 2]
        code, said = case.end(*case.start(*EXECUTORS[name]), meanwhile)
        what = f"case {place}: running damaged under {name}"
        case.check(what, code, said)
        case.again(what)
    return f"{hit} damaged"


def damaged(path: Path) -> bool:
    with suppress(OSError):
        whole = path.read_bytes()
        place = random.randrange(len(whole) or 1)
        made = random.choice(
            (whole[:place], b"", whole[:place] + b"7" + whole[place + 1 :], b"null", bytes(len(whole)))
        )
        with open(path, "r+b") as file:  # as it is: no new file
            file.write(made)
            file.truncate()
        return True
    return False


SCENARIOS = (full_disk, read_only, vanishing, two_masters, clocks, out_of_memory, damage)

if __name__ == "__main__":
    scenario, place, dice, most = sys.argv[1:]
    prepare(Path(place))
    random.seed(int(dice))
    case = Case(failing=scenario == "two_masters")
    done = {each.__name__: each for each in SCENARIOS}[scenario](case, int(most))
    print(f"{scenario}, {most} cases: {done}")
