"""What a grid takes beside what its dry run said, and what of it is the audit: CPU seconds, in small.

    python -m benchmarks.audit_cost                   every case, and the table
    python -m benchmarks.audit_cost --only purifier   what is named so

Each case is a published grid of fewer images, and where it has many of fewer models: a dry run in an empty folder, then
its cells and its audits one by one in the same process, models built (and trained, where they must be) beforehand. It
is written to cases.jsonl as it ends; the same command leaves out what is there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.audit.records import RETRIED, audits
from robustbench_local.audit.retrying import passes
from robustbench_local.core.progress import Progress
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import jobs_of
from robustbench_local.grids.preview import preview
from robustbench_local.report.markdown import markdown_table

AT_RUN_TIME = {"noise_fusion": {"training": False, "kind": "gaussian", "amplitude": 0.15}}


@dataclass(frozen=True)
class Case:
    """grid: a name of a packaged grid, or the path of one; overrides: what it says otherwise here."""

    grid: str
    about: str
    overrides: Mapping[str, Any]


CASES = {
    "noise_fusion, 20": Case("noise_fusion", "random", {"n": 20, "defenses": [AT_RUN_TIME]}),
    "noise_fusion, 100": Case("noise_fusion", "random", {"n": 100, "defenses": [AT_RUN_TIME]}),
    "purifier, 20": Case("purifier", "random, dear", {"n": 20}),
}


def measure(name: str, case: Case, folder: Path) -> Row:
    """One case, in that empty folder."""
    said = preview(Grid.open(case.grid, {**case.overrides, "results": str(folder), "dry_run": True}, Progress()))
    grid = Grid.open(case.grid, {**case.overrides, "results": str(folder)}, Progress())
    bench = Bench(grid)
    took = {"cells": 0.0, "audit": 0.0}
    for group in grid.groups:
        bench.keys(group)  # the model is built
        for job in jobs_of([group]):
            took["audit" if job.cell is None else "cells"] += _seconds(lambda job=job: bench.do(job))
    rows = [row for row in bench.ended() if row is not None and row.ok and row.is_cell]
    found = audits(grid.store)
    figures = [each.finding.figures for one in found for each in one.findings if each.finding.check == RETRIED]
    return {
        "case": name,
        "said": {"cells": sum(row["seconds"] or 0 for row in said), "audit": sum(row["audit"] for row in said)},
        "took": took,
        "passes": {"cells": sum(map(passes, rows)), "audit": sum(each.get("passes", 0) or 0 for each in figures)},
        "tried": sum(retry.tried for one in found for retry in one.retries),
        "broken": sum(len(retry.broken) for one in found for retry in one.retries),
        **surroundings(torch.device("cpu")),
    }


def _seconds(job: Callable[[], object]) -> float:
    started = time.process_time()
    job()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names with wildcards")
    parser.add_argument("--folder", type=Path, default=Path("results/benchmarks/audit_cost"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "cases.jsonl"
    known = {row["case"] for row in kept(file)}
    for name, case in CASES.items():
        if name not in known and fnmatch(name, options.only):
            with tempfile.TemporaryDirectory() as folder:
                keep(file, row := measure(name, case, Path(folder)))
            print(row, flush=True)


if __name__ == "__main__":
    main()
