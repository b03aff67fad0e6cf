"""One grid by every way of having it done: seconds, and whether the rows are the same.

    python -m benchmarks.workers grid=mnist_breaks n=100
    python -m benchmarks.workers --ways "inline 1 thread" "local 2" grid=mnist_breaks

Each way begins with an empty folder and a process of its own. Seconds are of the wall clock, with the start-up of
all processes and the report: nothing else may run beside. Rows are compared value by value with those of the first way,
their arrays too, but for what only tells who measured (seconds, and how often the model was asked beforehand).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks._timing import surroundings
from robustbench_local.config import reading
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store

OF_WHO_MEASURED = ("seconds", "checked_forwards", "judged_forwards")
# what each way adds to the command, of one process or of several that are started together; and OMP_NUM_THREADS
WAYS: dict[str, tuple[list[list[str]], int]] = {
    "inline 1 thread": ([["executor=inline"]], 1),
    "inline 2 threads": ([["executor=inline"]], 2),
    "local 2": ([["executor=local", "workers=2"]], 1),
    "local 4": ([["executor=local", "workers=4"]], 1),
    "shares 0/3 to 2/3": ([[f"worker={place}/3"] for place in range(3)], 1),
    "ray 2": ([["executor=ray", "workers=2"]], 1),
}


@dataclass(frozen=True)
class Way:
    """How long it took, and what it gave."""

    name: str
    seconds: float
    folder: Path

    def rows(self) -> dict[str, Row]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a damaged row is no row
            return {row.key: row for row in Store(self.folder).rows()}


def taken(name: str, words: Sequence[str], results: Path) -> Way:
    """The grid, done that way. RuntimeError where a process of it fails."""
    more, threads = WAYS[name]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *words, *own, f"results={results}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in more
    ]
    said = [process.communicate()[1] for process in processes]
    seconds = time.monotonic() - started
    if any(process.returncode not in (0, 1) for process in processes):  # 1: a cell failed, here as there
        raise RuntimeError(f"{name}: {' '.join(said)[-2000:]}")
    (folder,) = [path for path in results.iterdir() if path.is_dir()]
    return Way(name, seconds, folder)


def differing(one: Way, other: Way) -> list[str]:
    """The names of rows that are not the same in both, or not there in one."""
    mine, others = one.rows(), other.rows()
    return sorted(
        key
        for key in mine.keys() | others.keys()
        if key not in mine or key not in others or not _same(one, mine[key], other, others[key])
    )


def near_ties(one: Way, other: Way, keys: Sequence[str]) -> int:
    """Of rows that are in both and not the same, the images that are robust in one and not in the other."""
    mine, others = one.rows(), other.rows()
    both = [key for key in keys if key in mine and key in others and mine[key].ok and others[key].ok]
    return sum(int((_arrays(one, key)["robust"] != _arrays(other, key)["robust"]).sum()) for key in both)


def _same(one: Way, mine: Row, other: Way, row: Row) -> bool:
    if not (mine.ok and row.ok):
        return mine.ok == row.ok and mine.failure == row.failure
    here, there = ({**each.results, **dict.fromkeys(OF_WHO_MEASURED)} for each in (mine, row))
    arrays, others = _arrays(one, mine.key), _arrays(other, row.key)
    return (
        here == there
        and arrays.keys() == others.keys()
        and all(
            np.array_equal(values, others[name], equal_nan=values.dtype.kind == "f") for name, values in arrays.items()
        )
    )


def _arrays(way: Way, key: str) -> dict[str, Any]:
    return dict(Store(way.folder).arrays(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="key=value", help="as for experiments.run")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    reading.find("grid", dict(word.split("=", 1) for word in options.words)["grid"])
    table = Table("way", "seconds", "of the first", "rows", "differing", "images that differ")
    with tempfile.TemporaryDirectory() as folder:
        first: Way | None = None
        for name in options.ways:
            way = taken(name, options.words, Path(folder) / name.replace(" ", "-").replace("/", "-"))
            first = first or way
            wrong = differing(first, way)
            share = f"{way.seconds / first.seconds:.2f}"
            ties = near_ties(first, way, wrong)
            table.add_row(name, f"{way.seconds:.1f}", share, str(len(way.rows())), str(len(wrong)), str(ties))
            Console().print(f"{name}: {way.seconds:.1f} s, {len(wrong)} rows differ")
    Console().print(table)
    Console().print(surroundings(torch.device("cpu")))


if __name__ == "__main__":
    main()
