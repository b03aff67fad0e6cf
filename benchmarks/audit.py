"""What the audit finds among models and attacks that lie, and among honest ones: sensitivity and specificity.

    python -m benchmarks.audit                    all cases of tests/helpers on 60 MNIST images, and the table
    python -m benchmarks.audit --only "attack*"   what is named so
    python -m benchmarks.audit --weights PATH     with the TRADES weights of Zhang et al. 2019 among the controls

Each case is written as it ends, to cases.jsonl; the same command leaves out what is there. A liar counts as found where
a check that knows its fault named it, whatever else was named; a control where nothing at all was.
"""

from __future__ import annotations

import argparse
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks._kept import Row, keep, kept
from robustbench_local import load_data, load_model
from robustbench_local.audit.checklist import audit_model, audit_rows
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.report.markdown import markdown_table
from tests.helpers import liars
from tests.helpers.audit_cases import jumping
from tests.helpers.audit_cases.case import Case

THREAT = "linf:0.3"
EFFORT = Effort(draws=200, process=False)  # fewer random points, no fresh process: the time goes into cases
SURROGATES = ("zoo:mnist/label_smoothing", "zoo:mnist/none")


def of_model(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[list[Finding], dict[str, Any]]:
    own, labels = x if case.x is None else case.x, y if case.y is None else case.y
    card = audit_model(
        case.model,
        own,
        labels,
        case.threat,
        attack=case.attack,
        surrogates=SURROGATES if labels is y else (),
        classes=case.classes,
        effort=EFFORT,
    )
    return list(card.findings), {"clean": card.clean, "robust": card.robust}


def of_rows(make: liars.Rows, x: torch.Tensor, y: torch.Tensor) -> tuple[list[Finding], dict[str, Any]]:
    made = make(x, y)
    arrays = {row["key"]: own for row, own in made}
    found = audit_rows([row for row, _ in made], lambda row: arrays[row["key"]])
    return [each.finding for findings in found.values() for each in findings], {}


def measure(name: str, causes: tuple[str, ...], ask: Any) -> Row:
    started = time.monotonic()
    findings, figures = ask()
    named = [[each.check, each.status.name.lower(), each.evidence] for each in findings if each.status > Status.SOUND]
    checked = [each.check for each in findings if each.status > Status.UNCHECKED]
    return {
        "case": name,
        "liar": bool(causes),
        "causes": causes,
        "named": named,
        "checked": len(checked),
        **figures,
        "seconds": round(time.monotonic() - started, 1),
    }


def right(row: Row) -> bool:
    names = {check for check, _, _ in row["named"]}
    return bool(names & {*row["causes"]}) if row["liar"] else not names


def table(rows: list[Row], about: str) -> str:
    parts = ["# The audit, tried on liars and on honest models", about]
    for title, liar in (("Sensitivity: liars", True), ("Specificity: honest models", False)):
        chosen = [row for row in rows if row["liar"] is liar]
        good = sum(map(right, chosen))
        what = "found, by a check that knows the fault" if liar else "come out sound"
        parts += [f"## {title}", f"{good} of {len(chosen)} {what}."]
        heads = ["case", "", "named by" if liar else "alarms", "also named" if liar else "checks that ran"]
        lines = []
        for row in chosen:
            causes = [f"{check} ({status})" for check, status, _ in row["named"] if check in row["causes"]]
            others = [check for check, _, _ in row["named"] if check not in row["causes"]]
            last = ", ".join(others) if liar else str(row["checked"])
            mark = "yes" if right(row) else "**no**"
            lines.append([row["case"], mark, ", ".join(causes if liar else others) or "–", last or "–"])
        parts.append(markdown_table(heads, lines))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--only", default="*", help="names with wildcards")
    parser.add_argument("--weights", type=Path, help="TRADES's MNIST weights, a pickle of a state dict")
    parser.add_argument("--folder", type=Path, default=Path("results/audit"))
    options = parser.parse_args()
    x, y = load_data("mnist", n=options.n, source="bundled")
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "cases.jsonl"
    cases: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, liar in (liars.LIARS | jumping.LIARS).items():
        cases[name] = liar.causes, lambda liar=liar: of_model(liar.make(x, y), x, y)
    for name, (rows, cause) in liars.ROW_LIARS.items():
        cases[name] = (cause,), lambda rows=rows: of_rows(rows, x, y)
    for name, make in (liars.CONTROLS | jumping.HONEST).items():
        cases[name] = (), lambda make=make: of_model(make(x, y), x, y)
    for name, rows in liars.ROW_CONTROLS.items():
        cases[name] = (), lambda rows=rows: of_rows(rows, x, y)
    if options.weights:
        trades = load_model("trades_cnn", weights=options.weights, allow_pickle=True)
        cases["TRADES, the published weights"] = (), lambda: of_model(Case(trades), x, y)
    known = {row["case"] for row in kept(file)}
    for name, (causes, ask) in cases.items():
        if name not in known and fnmatch(name, options.only):
            row = measure(name, causes, ask)
            keep(file, row)
            said = ", ".join(f"{check} ({status})" for check, status, _ in row["named"])
            print(f"{'ok ' if right(row) else 'NOT'} {name}: {said}", flush=True)
    order = {name: place for place, name in enumerate(cases)}
    rows_kept = sorted((row for row in kept(file) if row["case"] in order), key=lambda row: order[row["case"]])
    done = {row["case"] for row in rows_kept}
    about = (
        f"`python -m benchmarks.audit{' --weights PATH' if options.weights else ''}`: {options.n} MNIST images,"
        f" {THREAT}, transfer from {' and '.join(SURROGATES)}, {EFFORT.steps} steps, {EFFORT.queries} queries,"
        f" {EFFORT.draws} random points. A liar counts as found where a check that knows its fault names it."
        " A control counts as sound where no check is suspicious or worse.\n\nChecks and cases were made together: some"
        " liars that went unnamed at first led to a changed check, and some to a liar that lies more (a longer sleep, a"
        " lower count of queries, a surrogate that does mislead). So these shares say that every"
        " check can fail and need"
        " not cry wolf; they are no estimate, and have no interval, for liars of others.\n\nA case is measured once and"
        " kept, so cases may come from different versions of the audit; without cases.jsonl all are measured again."
        f" Not measured: {', '.join(name for name in cases if name not in done) or 'none'}."
    )
    if rows_kept:
        (options.folder / "table.md").write_text(table(rows_kept, about), encoding="utf-8")


if __name__ == "__main__":
    main()
