"""What a grid takes beside what its dry run said, and what of it is the audit: CPU seconds, in small.

    python -m benchmarks.audit_cost                   every case, and the table
    python -m benchmarks.audit_cost --only purifier*  what is named so

Each case is a published grid of fewer images, and where it has many of fewer models: a dry run in an empty folder, then
its cells and its audits one by one in the same process, the models built beforehand. It is written to cases.jsonl as it
ends; the same command leaves out what is there. Of the published rows the table says what share their audits' passes
are expected to be, and of their retries, where these say so, what it was.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks._kept import Row, keep, kept
from benchmarks._timing import surroundings
from robustbench_local.audit.records import RETRIED, audits
from robustbench_local.audit.retrying import Expected, expected_passes, passes
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.grids.bench import Bench
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import jobs_of
from robustbench_local.grids.preview import preview
from robustbench_local.report.markdown import markdown_table
from robustbench_local.storage.row import Row as Measured
from robustbench_local.storage.store import Store

AT_RUN_TIME = {"noise_fusion": {"training": False, "kind": "gaussian", "amplitude": 0.15}}
CERTIFIED = str(Path(__file__).parents[1] / "experiments" / "mnist_certified.yaml")


@dataclass(frozen=True)
class Case:
    """grid: a name of a packaged grid, or the path of one; n: images; overrides: what else it says otherwise here."""

    grid: str
    n: int
    overrides: Mapping[str, Any]

    def open(self, folder: Path, *, dry_run: bool = False) -> Grid:
        """The grid, whose rows go there; without pictures, which are no part of an audit."""
        about = {"n": self.n, "pictures": 0, "device": "cpu", "results": str(folder), "dry_run": dry_run}
        return Grid.open(self.grid, {**self.overrides, **about}, Progress())


CASES = {
    "noise_fusion, 20 images": Case("noise_fusion", 20, {"defenses": [AT_RUN_TIME]}),
    "noise_fusion, 100 images": Case("noise_fusion", 100, {"defenses": [AT_RUN_TIME]}),
    "purifier, 20 images": Case("purifier", 20, {"defenses": [{"purifier": {"epochs": 60}}]}),
    "mnist_breaks, 20 images": Case("mnist_breaks", 20, {}),
    "mnist_detectors, 50 images": Case("mnist_detectors", 50, {}),
    "mnist_pgd, 100 images": Case("mnist_pgd", 100, {}),
    "cifar10_pgd, 50 images": Case("cifar10_pgd", 50, {}),
    "quickstart, 200 images": Case("quickstart", 200, {}),
    "mnist_certified, 10 images": Case(CERTIFIED, 10, {"models": ["zoo:mnist/adversarial_training"]}),
    "mnist_certified, 100 images": Case(CERTIFIED, 100, {"models": ["zoo:mnist/adversarial_training"]}),
}


def measure(name: str, case: Case, folder: Path) -> Row:
    """One case, in that empty folder: what the dry run said, and what its cells and its audits took."""
    started = time.process_time()
    said = preview(case.open(folder, dry_run=True))
    grid, dry = case.open(folder), time.process_time() - started
    bench, took = Bench(grid), {"cells": 0.0, "audit": 0.0}
    for group in grid.groups:
        bench.keys(group)  # the model is built
        for job in jobs_of([group]):
            started = time.process_time()
            bench.do(job)
            took["audit" if job.cell is None else "cells"] += time.process_time() - started
    rows = [row for row in bench.ended() if row is not None and row.ok and row.is_cell]
    retries = [retry for audit in audits(grid.store) for retry in audit.retries]
    return {
        "case": name,
        "said": {"cells": sum(row["seconds"] or 0 for row in said), "audit": sum(row["audit"] for row in said)},
        "took": took,
        "dry_run": dry,
        "passes": {"cells": sum(map(passes, rows)), "audit": audits_passes(grid.store)},
        "broken": sum(len(retry.broken) for retry in retries),
        **surroundings(torch.device("cpu")),
    }


def audits_passes(store: Store) -> float:
    """What the retries of a folder say that they spent."""
    found = [each.finding for audit in audits(store) for each in audit.findings if each.finding.check == RETRIED]
    return sum(finding.figures.get("passes") or 0.0 for finding in found)


def published_share(rows: Sequence[Measured]) -> float:
    """Of the passes of these rows, what their audits are expected to spend where no check suspects an attack."""
    groups: dict[str, list[Measured]] = {}
    for row in rows:
        groups.setdefault(row.of_group(), []).append(row)
    asked = 0.0
    for own in groups.values():
        each = [
            Expected(
                row.attack,
                ThreatModel.parse(row.threat, allow_large=True),
                row.said("targets") is None,
                passes(row),
                row.results["robust_accuracy"] * row.results["n"],
            )
            for row in own
        ]
        drawn = [int(own[0].said(key) or 1) if own[0].stochastic else 1 for key in ("eot", "draws")]
        asked += expected_passes(each, len(own[0].results["per_class"]), *drawn)
    return asked / sum(map(passes, rows))


def cases_table(measured: Sequence[Row]) -> str:
    heads = ["grid", "said", "took", "said / took", "audit said", "took", "said / took", "audit / cells", "broken"]
    lines = []
    for row in measured:
        said, took = row["said"], row["took"]
        every = sum(said.values()), sum(took.values())
        lines.append(
            [
                row["case"],
                *(f"{seconds:.1f}" for seconds in every),
                _ratio(*every),
                *(f"{each['audit']:.2f}" for each in (said, took)),
                _ratio(said["audit"], took["audit"]),
                f"{took['audit'] / took['cells']:.2f}",
                str(row["broken"]),
            ]
        )
    return markdown_table(heads, lines)


def _ratio(said: float, took: float) -> str:
    return f"{said / took:.2f}" if said else "–"


def table(measured: Sequence[Row], published: Mapping[str, float]) -> str:
    machines = ", ".join(sorted({row["hardware"] for row in measured}))
    about = (
        "`python -m benchmarks.audit_cost`: CPU seconds of one thread, cells and audits together, as a dry run says"
        " them and as the grid took them, and of its audits alone. Broken: images on which the audit's stronger attack"
        f" succeeded. Measured on {machines}, beside other work."
    )
    shares = [[name, f"{share:.3f}"] for name, share in published.items()]
    besides = (
        "Of the published grids, at their sizes: what share of their passes an audit is expected to spend, where no"
        " check suspects an attack. Passes of its small batches take up to twice as long."
    )
    return (
        "\n\n".join(
            [
                "# What a grid takes beside what its dry run says, and its audit",
                about,
                cases_table(measured),
                besides,
                markdown_table(["grid", "audit / cells, passes"], shares),
                "",
            ]
        ).rstrip("\n")
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names with wildcards")
    parser.add_argument("--folder", type=Path, default=Path("results/benchmarks/audit_cost"))
    parser.add_argument("--results", type=Path, default=Path("results"), help="folders of published rows")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "cases.jsonl"
    known = {row["case"] for row in kept(file)}
    for name, case in CASES.items():
        if name not in known and fnmatch(name, options.only):
            with tempfile.TemporaryDirectory() as folder:
                keep(file, row := measure(name, case, Path(folder)))
            print(row, flush=True)
    rows = {row["case"]: row for row in kept(file)}
    if rows:
        shares = {}
        for store in Store(options.results / "none", own=False).neighbours():
            own = [row for row in store.rows() if row.ok and not row.corrupts]
            if own:
                shares[store.folder.name] = published_share(own)
        text = table([rows[name] for name in CASES if name in rows], shares)
        (options.folder / "table.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
