"""Rows -> an assessment: what whoever must sign that a model is robust enough has to know, every figure with its rows.

A pure function of rows and the audits beside them: no clock, no machine, no plug-in is asked.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from robustbench_local.core.errors import ConfigError
from robustbench_local.core.escaping import visible
from robustbench_local.report.assessment_baseline import ALPHA, by_row
from robustbench_local.report.assessment_condition import condition, is_fault
from robustbench_local.report.assessment_map import requirements
from robustbench_local.report.assessment_parts import Condition, Shift, WorstCase
from robustbench_local.report.assessment_record import (
    SCHEMA,
    Assessment,
    Baseline,
    Deviation,
    Machine,
    RowRecord,
    Subject,
)
from robustbench_local.report.assessment_shift import shift
from robustbench_local.report.compare import POWER, compare
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable, corruption_tables
from robustbench_local.report.labels import defense_labels
from robustbench_local.report.members import Groups, check_known
from robustbench_local.report.results import Results
from robustbench_local.report.table import Line, Table, identity_of
from robustbench_local.storage.row import Row, done
from robustbench_local.storage.sealing import digest

STATEMENT = "This report makes no claim of conformity."
_SHOWN = (
    "n",
    "clean_accuracy",
    "clean_interval",
    "robust_accuracy",
    "robust_interval",
    "robust_accuracy_8bit",
    "corruption_accuracy",
    "corruption_interval",
    "certified_accuracy",
    "certified_interval",
    "confidence",
    "intervals",
    "forwards_mean",
    "backwards_mean",
    "distance_median",
    "seconds",
    "flags",
)


def assess(
    results: Results,
    title: str,
    declared: float | None = None,
    before: Results | None = None,
    groups: Groups | None = None,
) -> Assessment:
    """declared: a level in [0, 1] to hold robust accuracies against. before: results to compare with.

    ConfigError for a level outside [0, 1]; DataError for groups of what is not there, and StoreError where the two have
    no cell in common or arrays are damaged.
    """
    if declared is not None and not 0 <= declared <= 1:
        raise ConfigError(f"the declared level is {declared}: a share in [0, 1], as 0.45 for 45 %")
    if groups:
        check_known(groups, filter(done, results.rows), lambda row: results.arrays(row, "labels", "ids"))
    changes = None if before is None else compare(before, results, ALPHA)
    found = _Models(results)
    by_key = None if changes is None else by_row(changes, results)
    subjects = []
    for number, (rows, lines, natural) in enumerate(found.models, 1):
        id = f"m{number}"
        conditions = [
            condition(f"{id}-c{place}", table, line, results, declared, groups, by_key)
            for place, (table, line) in enumerate(lines, 1)
        ]
        shifts = [shift(f"{id}-n{place}", table, line, by_key) for place, (table, line) in enumerate(natural, 1)]
        subjects.append(_subject(id, found.labels[number - 1], rows[0], list(_with_unions(conditions)), shifts))
    made_on, records = _records([*results.rows, *results.certificates])
    rows_digest = _digest_of(results)
    baseline = None
    if before is not None and changes is not None:
        baseline = Baseline(
            ALPHA,
            POWER,
            tested=sum(change.pair is not None for change in changes),
            worse=sum(change.worse for change in changes),
            not_compared=tuple((change.what, change.name) for change in changes if not change.pair),
            rows=_records([*before.rows, *before.certificates])[1],
        )
    made = [row.created for row in results.rows if row.created]
    whole = Assessment(
        schema=SCHEMA,
        title=visible(title),
        identification=digest([rows_digest, declared, groups, before and _digest_of(before)], 64),
        rows_digest=rows_digest,
        first=min(made, default=None),
        last=max(made, default=None),
        machines=made_on,
        subjects=tuple(subjects),
        deviations=tuple(deviation for subject in subjects for deviation in _deviations(subject)),
        declared=declared,
        baseline=baseline,
        statement=STATEMENT,
        conformity=None,
        opinions=None,
        laboratory=None,
        customer=None,
        authorised_by=None,
        requirements=(),
        rows=records,
    )
    return replace(whole, requirements=tuple(requirements(whole)))


def json_text(assessment: Assessment) -> str:
    """All of it, for another program; shares in [0, 1], null for what was not measured."""
    return json.dumps(asdict(assessment), indent=1, allow_nan=False) + "\n"


class _Models:
    """The deployed models of some results, each with its rows, the lines of its tables, and those under corruptions.

    In the order of data, model and defense; labels: what sets the defense of each apart.
    """

    def __init__(self, results: Results) -> None:
        lines: dict[tuple[str, str], list[tuple[Table, Line]]] = defaultdict(list)
        natural: dict[tuple[str, str], list[tuple[CorruptionTable, CorruptionLine]]] = defaultdict(list)
        for table in results.tables():
            for line in table.lines:
                lines[table.data, identity_of(line)].append((table, line))
        for nature in corruption_tables(results.rows, results.baseline):
            for each in nature.lines:
                natural[nature.data, each.identity].append((nature, each))
        rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in sorted(results.rows, key=lambda row: row.key):
            rows[visible(row.definition["data"]), row.of_model()].append(row)
        keys = list(rows)
        named = dict(zip(keys, defense_labels([rows[key][0] for key in keys]), strict=True))
        keys.sort(key=lambda key: (key[0], rows[key][0].model, str(named[key]), key[1]))
        self.labels = [str(named[key]) for key in keys]
        self.models = [(rows[key], lines[key], natural[key]) for key in keys]


def _subject(id: str, defense: str, row: Row, conditions: Sequence[Condition], shifts: Sequence[Shift]) -> Subject:
    about = row.definition
    return Subject(
        id=id,
        model=visible(row.model),
        defense=defense,
        data=visible(about["data"]),
        families=tuple(visible(family) for family in row.families if family),
        defense_settings=about["defense_settings"],
        defense_version=about["defense_version"],
        weights_digest=about["weights_digest"],
        behaviour_digest=about.get("behaviour_digest"),
        model_about=about.get("model_about"),
        conditions=tuple(conditions),
        shifts=tuple(shifts),
    )


def _with_unions(conditions: Sequence[Condition]) -> Iterator[Condition]:
    """A union's figure is made of the rows of all conditions that name it, on the same images."""
    rows: dict[tuple[Any, ...], list[str]] = defaultdict(list)

    def place(each: Condition, case: WorstCase) -> tuple[Any, ...]:
        return case.over, each.grid, each.data_digest, str(each.ids), each.targets, each.under, each.random

    for each in conditions:
        for case in each.worst_cases:
            rows[place(each, case)] += case.figure.rows if case.figure else ()
    for each in conditions:
        yield replace(
            each,
            worst_cases=tuple(
                replace(case, figure=replace(case.figure, rows=tuple(rows[place(each, case)])))
                if case.figure and case.over.startswith("union")
                else case
                for case in each.worst_cases
            ),
        )


def _deviations(subject: Subject) -> Iterator[Deviation]:
    """Cells that are missing, flags, and what the audit did not find sound, in the order of conditions."""
    for each in subject.conditions:
        where = each.id, subject.name, name_of(each)
        for attack in each.attacks:
            keys = (attack.row,) if attack.row else ()
            if attack.missing:
                kind = next((kind for kind in ("left out", "failed") if attack.missing.startswith(kind)), "not run")
                yield Deviation(*where, kind, f"{attack.attack}: {attack.missing}", "", keys)
            for flag, why in attack.flags:
                yield Deviation(*where, "flag", f"{attack.attack}: {flag}. {why}", "", keys)
        for contradiction in each.contradictions:
            yield Deviation(*where, "contradiction", contradiction, "", each.rows)
        if each.unaudited:
            yield Deviation(*where, "not audited", each.unaudited, "", each.rows)
        for finding in filter(is_fault, each.findings):
            said = f"{finding.status}: {finding.check} ({finding.evidence})"
            yield Deviation(*where, "audit", said, finding.advice, each.rows)
    for nature in subject.shifts:
        where = nature.id, subject.name, nature.benchmark
        for missing in nature.missing:
            yield Deviation(*where, "missing", missing, "", ())
        for flag, why in nature.flags:
            yield Deviation(*where, "flag", f"{flag}. {why}", "", nature.rows)


def name_of(condition: Condition) -> str:
    """ "linf:8/255 under fog:3, targets: random, 500 images"."""
    under = f" under {condition.under}" if condition.under else ""
    aim = f", targets: {condition.targets}" if condition.targets else ""
    grid = f", {condition.grid}" if condition.grid else ""
    return f"{condition.threat}{under}{aim}, {condition.images:,} images{grid}"


def _records(rows: Sequence[Row]) -> tuple[tuple[Machine, ...], tuple[RowRecord, ...]]:
    """Every row by key, and the environments that they name."""
    environments = {json.dumps(row.get("environment", {}), sort_keys=True) for row in rows}
    order = {text: place for place, text in enumerate(sorted(environments))}
    records = []
    for row in sorted(rows, key=lambda row: row.key):
        known: dict[str, Any] = dict(row.results) if done(row) else {"error": visible(row.why)}
        figures = {name: known[name] for name in (*_SHOWN, "error") if name in known}
        place = order[json.dumps(row.get("environment", {}), sort_keys=True)]
        records.append(RowRecord(row.key, row.created, row["status"], dict(row.definition), figures, place))
    machines = [
        Machine(json.loads(text), sum(record.machine == place for record in records)) for text, place in order.items()
    ]
    return tuple(machines), tuple(records)


def _digest_of(results: Results) -> str:
    """64 hex digits over the rows, with the digests of their arrays, and the audits beside them."""
    audits = sorted((asdict(audit) for audit in results.audits), key=lambda audit: json.dumps(audit, sort_keys=True))
    rows = sorted([*results.rows, *results.certificates], key=lambda row: row.key)
    return digest({"rows": rows, "audits": audits}, 64)
