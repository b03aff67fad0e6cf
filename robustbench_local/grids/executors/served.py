"""A worker process that is told what to do, one job after the other, by whoever started it (remote.py).

Standard input: the orders (child.py), then a job a line. Standard output: what it says, and at the end of each job that
it is done, a JSON object a line. What plug-ins print goes to standard error instead.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import RobustBenchError, said
from robustbench_local.core.progress import Progress
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.executors.child import WRONG, Orders, lines
from robustbench_local.grids.executors.remote import AUDIT, MODEL
from robustbench_local.grids.executors.work import POLL, part, work
from robustbench_local.grids.jobs import Group, Job


@dataclass
class Answers(Progress):
    """One JSON object a line, for whoever started this process."""

    stream: TextIO

    def line(self, text: str) -> None:
        self.say(line=text)

    def say(self, **answer: Any) -> None:
        print(json.dumps(answer), file=self.stream, flush=True)


def main() -> None:
    """Never returns by itself: it ends when its standard input does."""
    answers = Answers(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    warnings.showwarning = lambda message, *_, **__: answers.line(f"warning: {message}")
    told = lines()
    orders = Orders(**json.loads(next(told)))
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(told, jobs), daemon=True).start()
    try:
        with guarded():
            grid = orders.opened(answers)
            bench = Bench(grid)
            while True:
                grid.running.claims.says("", "idle")
                job = jobs.get()
                answers.say(done=_do(bench, grid.groups[job["group"]], job["what"], job["rows"]))
    except RobustBenchError as error:
        answers.say(wrong=f"{type(error).__name__}: {said(error)}")
        sys.exit(WRONG)


def _listen(told: Iterator[bytes], jobs: queue.Queue[dict[str, Any]]) -> None:
    for line in told:
        jobs.put(json.loads(line))


def _do(bench: Bench, group: Group, what: int | str, rows: list[int] | None) -> list[str]:
    """The files of the cache that hold what the group's model learnt, where the model was asked for."""
    if what == MODEL:
        while bench.keys(group) is None:  # somebody else trains it
            time.sleep(POLL)
        return [str(file) for file in bench.grid.builder.kept(group.spec)]
    job = Job(group, None if what == AUDIT else int(what))
    if rows is None:
        work(bench, [job])
        return []
    keys = bench.keys(group)
    key = None if keys is None or job.cell is None else keys[job.cell]
    asked = [each for each in bench.missing_parts(job) if [each.start, each.stop] == rows]
    if key is not None and asked and bench.shelf.settled(key) is None:
        part(bench, job, key, asked)  # or somebody else is at it
    return []


if __name__ == "__main__":
    main()
