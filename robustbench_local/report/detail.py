"""What opens below a model on the page: its cells, classes, settings, and the grounds to believe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from robustbench_local.audit.finding import Status
from robustbench_local.core.escaping import visible
from robustbench_local.metrics.rates import wilson
from robustbench_local.report.panel_view import PanelView, panel_of
from robustbench_local.report.results import Results
from robustbench_local.report.table import Line, Rate, Table, rate, worst_case
from robustbench_local.report.text import explain, flag_name, percent
from robustbench_local.report.words import verdict
from robustbench_local.storage.row import Row, done

_FEWEST = 10  # images a class, to speak of classes
_PICTURED = 100  # models of a table that have pictures on the page: they take more of it than all else
_SHOWN = {  # the measures that have a place of their own on the page
    "n",
    "stochastic",
    "clean_accuracy",
    "clean_interval",
    "robust_accuracy",
    "robust_interval",
    "robust_accuracy_8bit",
    "per_class",
    "forwards_mean",
    "backwards_mean",
    "prepared_forwards",
    "prepared_backwards",
    "checked_forwards",
    "judged_forwards",
    "notes",
    "distance_median",
    "seconds",
    "flags",
    "classes",
}


@dataclass(frozen=True)
class Flag:
    """A flag as it is shown: "near_tie" is "near tie: 3"."""

    name: str
    label: str
    why: str


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model; fault says why there is no result."""

    attack: str
    access: str
    robust: Rate | None
    fault: str = ""
    passes: str = ""
    distance: str = ""
    seconds: float = 0.0
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Class:
    name: str
    n: int
    clean: Rate
    robust: Rate


@dataclass(frozen=True)
class Ground:
    """One reason to believe, or to doubt. audit: a check of the audit that found nothing."""

    good: bool
    text: str
    audit: bool = False


@dataclass(frozen=True)
class Detail:
    verdict: str
    cells: tuple[AttackResult, ...]
    classes: tuple[Class, ...]
    grounds: tuple[Ground, ...]
    settings: tuple[tuple[str, str], ...]
    measures: tuple[tuple[str, str], ...]
    panel: PanelView | None = None

    @property
    def cautions(self) -> int:
        return sum(not ground.good for ground in self.grounds)


def detail(line: Line, table: Table, results: Results) -> Detail:
    cells = [_cell(str(label), row) for label, row in zip(table.attacks, line.rows, strict=True)]
    cells.sort(key=lambda cell: (cell.robust is None, cell.robust.value if cell.robust else 0.0, cell.attack))
    return Detail(
        verdict=verdict(line, table),
        cells=tuple(cells),
        classes=tuple(_classes(line, table, results)),
        grounds=tuple(sorted(_grounds(line, table, results), key=lambda ground: ground.good)),
        settings=tuple(_settings(line)),
        measures=tuple(_measures(line)),
        panel=panel_of(line, results) if any(each is line for each in table.lines[:_PICTURED]) else None,
    )


def flags_of(rows: Iterable[Row | None]) -> list[Flag]:
    """Every flag of these rows once, counts left out where rows differ."""
    every: dict[str, set[str]] = {}
    for row in rows:
        for flag in row.results["flags"] if done(row) else ():
            every.setdefault(flag_name(visible(flag)), set()).add(visible(flag))
    return [_flag(found.pop() if len(found) == 1 else name) for name, found in sorted(every.items())]


def _flag(flag: str) -> Flag:
    return Flag(flag_name(flag), flag.replace("_", " ").replace(":", ": "), explain(flag))


def _cell(attack: str, row: Row | None) -> AttackResult:
    if row is None:
        return AttackResult(attack, "", None, "not run")
    access = visible(row.definition["access"])
    if not done(row):
        return AttackResult(attack, access, None, visible(row.why))
    found = row.results
    prepared = found.get("prepared_forwards", 0) + found.get("prepared_backwards", 0)
    beside = found.get("checked_forwards", 0) + found.get("judged_forwards", 0)  # older rows do not say
    distance = found["distance_median"]
    return AttackResult(
        attack,
        access,
        rate(row, "robust"),
        passes=f"{_count(found['forwards_mean'])} + {_count(found['backwards_mean'])}"
        + (f", and {_count(prepared)} to prepare" if prepared else "")
        + (f"; {_count(beside)} in all to check and judge" if beside else ""),
        distance="" if distance is None else f"{distance:.4g}",
        seconds=found["seconds"],
        flags=tuple(flags_of((row,))),
    )


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def _classes(line: Line, table: Table, results: Results) -> Iterator[Class]:
    """Per class that occurs, in the order of labels; the worst case, or where there is none the strongest attack.

    Nothing of fewer than _FEWEST images a class, whose intervals would reach over most of the scale.
    """
    good = [row for row in line.rows if done(row)]
    if not good or not good[0].results["per_class"]:
        return
    bits = worst_case(table, line, results.robust_shares)
    if bits is None:
        bits = results.robust_shares(min(good, key=lambda row: row.results["robust_accuracy"]))
    labels = results.arrays(good[0], "labels").get("labels")
    if labels is None or len(labels) < _FEWEST * len(np.unique(labels)):
        return
    for label, known in zip(np.unique(labels), good[0].results["per_class"], strict=True):
        own = bits[labels == label]
        n, kept, right = len(own), float(own.sum()), known["clean"] * len(own)
        clean, robust = Rate(right / n, *wilson(right, n)), Rate(kept / n, *wilson(kept, n))
        yield Class(visible(known["class"]), n, clean, robust)


def _grounds(line: Line, table: Table, results: Results) -> Iterator[Ground]:
    judging = [(attack, row) for attack, row in zip(table.attacks, line.rows, strict=True) if not attack.naive]
    good = [row for _, row in judging if done(row)]
    total = len(judging)
    if len(good) == total:
        ran = f"All {total} attacks of this table ran to their end." if total > 1 else "The attack ran to its end."
        yield Ground(True, ran)
    else:
        yield Ground(False, f"{total - len(good)} of {total} attacks are missing or failed: no worst case, no rank.")
    levels = {row.definition["access"] for row in good}
    if "gradients" in levels and levels & {"scores", "labels"}:
        yield Ground(True, "Attacked with gradients and without: masked gradients would show.")
    elif "gradients" in levels:
        yield Ground(False, "Only attacks that follow gradients ran: masked gradients would not show.")
    elif good:
        yield Ground(False, "No attack saw gradients: an attacker who does may find more.")
    for flag in flags_of(line.rows):
        yield Ground(False, f"{flag.label.capitalize()}. {flag.why}")
    if good and not flags_of(line.rows):
        yield Ground(True, "Nothing was flagged.")
    rounded = [
        (row.results["robust_accuracy_8bit"] - row.results["robust_accuracy"], str(label))
        for label, row in zip(table.attacks, line.rows, strict=True)
        if done(row)
    ]
    if rounded and max(rounded)[0] >= 0.005:
        loss, attack = max(rounded)
        yield Ground(False, f"Rounded to 8 bits, the images of {attack} lose {percent(loss)} points of their success.")
    elif rounded:
        yield Ground(True, "What was found survives rounding to 8 bits inside the ball.")
    for contradiction in line.contradictions:
        yield Ground(False, f"Contradiction: {contradiction}.")
    if line.unaudited:
        yield Ground(False, f"Not audited: {line.unaudited}.")
    keys = {row.key for row in good}
    for audit in results.audits.that_saw(keys):
        for each in audit.findings:
            found = each.finding
            if each.threat == table.threat and found.status is not Status.UNCHECKED:
                sound = found.status is Status.SOUND
                advice = "" if sound or not found.advice else f" {found.advice[0].upper()}{found.advice[1:]}."
                said = f"{found.check}: {found.evidence}."
                if not sound:
                    said = f"Audit, {found.status.name.lower()}: {said}"
                yield Ground(sound, visible(said + advice), audit=sound)


def _settings(line: Line) -> Iterator[tuple[str, str]]:
    row = next((row for row in line.rows if row is not None), None)
    if row is None:
        return
    about, machine = row.definition, row.get("environment", {})
    for name, value in about["defense_settings"].items():
        yield visible(name), "not set" if value is None else visible(value)
    for name in ("seed", "precision", "eot", "draws", "weights_digest", "behaviour_digest", "data_digest", "transform"):
        value = about.get(name)
        if value is not None and (name not in ("eot", "draws") or row.get("results", {}).get("stochastic")):
            yield name.replace("_", " "), visible(str(value)[:16] if name.endswith("digest") else value)
    versions = " · ".join(
        f"{name} {machine[name]}" for name in ("robustbench_local", "torch", "python") if name in machine
    )
    if versions:
        yield "made with", visible(versions)
    if "device" in machine:
        yield "on", visible(machine["device"])


def _measures(line: Line) -> Iterator[tuple[str, str]]:
    """What rows know beyond the usual: numbers, of the first row that has them."""
    seen: set[str] = set(_SHOWN)
    for row in line.rows:
        for name, value in row.results.items() if done(row) else ():
            if name not in seen and isinstance(value, int | float) and not isinstance(value, bool):
                seen.add(name)
                yield visible(name.replace("_", " ")), f"{value:.4g}"
