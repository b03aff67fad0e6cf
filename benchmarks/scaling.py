"""How seconds and memory grow with images, classes, pixels, parameters, cells and workers: measured sizes, fitted
exponents.

    python -m benchmarks.scaling --folder FOLDER            # all; two folders of 10,000 rows are made there, once
    python -m benchmarks.scaling --folder FOLDER --only images classes

Each size is a process of its own, since the most memory that a process held never falls again; seconds are those that
it had a core for, with one thread, but of workers those of the clock: nothing else may run then. What is measured is
kept in results/benchmarks/scaling/, and table.md is made of it. Networks are as small as may be where the network is
not what grows: so the harness is timed, not the network.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._kept import Row, keep, kept
from benchmarks._many_rows import Shape, make, part
from benchmarks._timing import surroundings
from robustbench_local.cli.main import main as command
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.metrics.summary import summarise
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.store import Store

OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "scaling"
FITTED = 3  # sizes above the smallest, at least, through which a power law is laid
_FEWEST = 16.0  # MiB between the smallest and the largest size, below which memory says nothing
_ATTACKS, _IMAGES = 10, 500  # of the made-up rows, each model's

Job = Callable[[int, Path], Callable[[], object]]  # (size, folder) -> what is timed, once all else is there


@dataclass(frozen=True)
class Axis:
    """What grows through which sizes, and what is done at each; why: where it may grow faster than the size.

    clock: whether seconds are those that pass, since others do the work.
    """

    what: str
    sizes: tuple[int, ...]
    job: Job
    why: str = ""
    clock: bool = False


def attacked(net: nn.Module, shape: tuple[int, ...], images: int, classes: int, steps: int) -> Callable[[], object]:
    """PGD on random images (images, *shape), judged, and all figures of its row."""
    x = torch.rand(images, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = net(x).argmax(1)  # weights are fresh: all images are right, for the attack to have work
    names = [str(k) for k in range(classes)]
    return lambda: summarise(evaluate(net, x, y, "pgd", "linf:2/255", steps=steps, allow_chance=True), names)


def images(size: int, _: Path) -> Callable[[], object]:
    return attacked(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 28, 28), size, 10, 5)


def classes(size: int, _: Path) -> Callable[[], object]:
    return attacked(nn.Sequential(nn.Flatten(), nn.Linear(784, size)), (1, 28, 28), 2000, size, 5)


def pixels(size: int, _: Path) -> Callable[[], object]:
    side = round(size**0.5)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return attacked(net, (3, side, side), 100, 10, 10)


def parameters(size: int, _: Path) -> Callable[[], object]:
    width = max(1, round(size / 794))
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    return attacked(net, (1, 28, 28), 250, 10, 10)


def rows_of(size: int, folder: Path, seed: int) -> Path:
    """A results folder of so many rows, the first of those that were made."""
    whole, models = folder / f"rows-{seed}", size // _ATTACKS
    if not whole.exists():
        half = folder / f"half-{seed}"
        make(half, Shape(max(AXES["report"].sizes) // _ATTACKS, _ATTACKS, images=_IMAGES), seed)
        half.rename(whole)
    return part(whole, folder / f"rows-{seed}-{size}", models)


def scan(size: int, folder: Path) -> Callable[[], object]:
    there = rows_of(size, folder, 0)
    return lambda: Store(there).rows()


def report(size: int, folder: Path) -> Callable[[], object]:
    there, into = rows_of(size, folder, 0), folder / f"report-{size}"
    return lambda: told("report", there, "--into", into)


def compare(size: int, folder: Path) -> Callable[[], object]:
    before, after = (rows_of(size, folder, seed) for seed in (0, 1))
    return lambda: told("compare", before, after)


def workers(size: int, folder: Path) -> Callable[[], object]:
    made = folder / f"workers-{size}"
    shutil.rmtree(made, ignore_errors=True)
    how = ("executor=local", f"workers={size}", f"results={made}")
    return lambda: told("run", "grid=mnist_breaks", "n=150", "pictures=0", *how)


def told(*words: object) -> int:
    """The command, which may speak to nobody; its exit code."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return command([*map(str, words)])


_ROWS = (1250, 2500, 5000, 10_000)
AXES = {
    "images": Axis("PGD-5 on a linear network, judged, with all figures", (7500, 15_000, 30_000, 60_000), images),
    "classes": Axis("the same on 2,000 images", (10, 100, 300, 1000), classes),
    "pixels": Axis("PGD-10, 100 images, a small convolution", (28**2, 56**2, 112**2, 224**2), pixels),
    "parameters": Axis("PGD-10, 250 images, two layers", (10**4, 10**5, 10**6, 10**7), parameters),
    "scan": Axis("reading and verifying all rows of a folder, as status does", _ROWS, scan),
    "report": Axis(
        "the command, on rows of ten attacks a model, 500 images each",
        _ROWS,
        report,
        "ranks test every pair of models of a table, which is what they say: one product of matrices of models by"
        " images, and memory for every pair.",
    ),
    "compare": Axis("the command, on two such folders", _ROWS, compare),
    "workers": Axis(
        "run grid=mnist_breaks n=150 from nothing, by local workers of one thread",
        (1, 2),
        workers,
        "seconds are of the clock, and memory is that of the process that starts the workers. The longest cell bounds"
        " what more of them can save.",
        clock=True,
    ),
}


def point(axis: str, size: int, folder: Path) -> Row:
    """One size, in this process."""
    torch.manual_seed(0)
    job, clock = AXES[axis].job(size, folder), time.monotonic if AXES[axis].clock else time.process_time
    before, started = _peak(), clock()
    job()
    seconds = clock() - started
    page = folder / f"report-{size}" / "index.html"
    more = {"page_mb": page.stat().st_size / 1e6} if axis == "report" else {}
    found = {"axis": axis, "size": size, "seconds": seconds, "mib": _peak(), "mib_before": before, **more}
    return found | surroundings(torch.device("cpu"))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """b of value - value_0 = a * (size - size_0)^b, size_0 being the smallest, so that fixed costs do not count; by
    least squares of logarithms. None of too few sizes, or where a value is no more than the smallest's.
    """
    more = np.array(sizes[1:]) - sizes[0], np.array(values[1:]) - values[0]
    if len(sizes) <= FITTED or more[1].min() <= 0:
        return None
    return float(np.polyfit(np.log(more[0]), np.log(more[1]), 1)[0])


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each axis, of each size what was measured last."""
    newest = {(row["axis"], row["size"]): row for row in rows}
    lines, notes, machines = [], [], {f"{row['hardware']}, torch {row['torch']}" for row in newest.values()}
    for name, axis in AXES.items():
        own = [newest[name, size] for size in axis.sizes if (name, size) in newest]
        if not own:
            continue
        sizes = [row["size"] for row in own]
        seconds, peaks = [row["seconds"] for row in own], [row["mib"] for row in own]
        more = [row["mib"] - row["mib_before"] for row in own]
        grows = exponent(sizes, more) if more[-1] - more[0] >= _FEWEST else None
        lines.append(
            [
                name,
                axis.what,
                ", ".join(f"{size:,}" for size in sizes),
                ", ".join(f"{each:.2f}" for each in seconds),
                _short(exponent(sizes, seconds)),
                ", ".join(f"{each:.0f}" for each in peaks),
                _short(grows),
            ]
        )
        notes += [f"- {name}: {axis.why}"] * bool(axis.why)
        pages = [f"{row['page_mb']:.1f}" for row in own if "page_mb" in row]
        notes += [f"- {name}: the page has {', '.join(pages)} MB."] * bool(pages)
    heads = ["grows", "what is done", "sizes", "seconds", "exponent", "peak MiB", "exponent"]
    return "\n".join(
        [
            "# How cost grows",
            "",
            "`python -m benchmarks.scaling`: one process for each size, one thread, seconds that it had a core for,"
            " the most memory that it held. Exponents b of (size - smallest)^b are fitted to what each size takes"
            " more than the smallest, so that fixed costs do not hide growth; 1 is linear, – too little to tell.",
            "",
            f"Measured on: {'; '.join(sorted(machines))}, beside other work.",
            "",
            markdown_table(heads, lines, [False, False, True, True, True, True, True]),
            "",
            *notes,
            "",
        ]
    )


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for made-up rows, which stay there")
    parser.add_argument("--out", type=Path, default=OUT, help="for scaling.jsonl and table.md")
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "SIZE"), help="one size, in this process: its line")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.point:
        axis, size = given.point
        print(json.dumps(point(axis, int(size), given.folder)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    again = [sys.executable, "-m", "benchmarks.scaling", "--folder", str(given.folder), "--point"]
    for axis in given.only:
        for size in AXES[axis].sizes:
            done = subprocess.run(
                [*again, axis, str(size)], check=True, stdout=subprocess.PIPE, text=True, env=_one_thread()
            )
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            keep(given.out / "scaling.jsonl", found)
            print(f"{axis} {size:,}: {found['seconds']:.2f} s, {found['mib']:.0f} MiB", file=sys.stderr, flush=True)
    with whole_file(given.out / "table.md") as file:
        file.write(table(kept(given.out / "scaling.jsonl")).encode())


def _one_thread() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
