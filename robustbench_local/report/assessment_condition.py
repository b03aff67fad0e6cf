"""One line of a table -> a condition of an assessment: its figures with the rows behind them, and its grounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from robustbench_local.audit.finding import Status
from robustbench_local.core.escaping import visible
from robustbench_local.metrics.groups import largest_gap, rates_of
from robustbench_local.metrics.rates import Floats, method
from robustbench_local.report.assessment_parts import (
    AttackResult,
    AuditFinding,
    Compared,
    Condition,
    Declared,
    Figure,
    Part,
    Retry,
    WorstCase,
)
from robustbench_local.report.detail import flags_of
from robustbench_local.report.labels import Label
from robustbench_local.report.members import Groups, members_of
from robustbench_local.report.results import Results
from robustbench_local.report.table import Line, Rate, Table, rate, worst_case
from robustbench_local.storage.row import Row, done

TOGETHER = ", all together (Sidak)"


def condition(
    name: str,
    table: Table,
    line: Line,
    results: Results,
    declared: float | None = None,
    groups: Groups | None = None,
    changes: Mapping[str, Sequence[Compared]] | None = None,
) -> Condition:
    """name: the condition's id. changes: of a comparison, by the keys of the rows that they are about."""
    rows = [row for row in line.rows if row is not None]
    about = rows[0].definition
    shares = worst_case(table, line, results.robust_shares)
    worst = list(_worst_cases(table, line, shares))
    robust = next((each.figure for each in reversed(worst[: len(table.worst)])), None)
    parts = dict(_parts(line, shares, results, groups))
    own = results.audits.that_saw(row.key for row in rows if done(row))
    return Condition(
        id=name,
        data=table.data,
        split=table.split,
        images=table.images,
        ids=about["ids"],
        data_digest=about["data_digest"],
        transform=about.get("transform"),
        threat=table.threat,
        targets=table.targets,
        under=table.under,
        grid=table.grid,
        precision=tuple(sorted({visible(row.definition["precision"]) for row in rows})),
        seeds=tuple(sorted({row.definition["seed"] for row in rows})),
        random=table.stochastic,
        draws=about["draws"] if table.stochastic else None,
        clean=next((figure_of(row, "clean") for row in rows if done(row)), None),
        robust=robust,
        worst_cases=tuple(worst),
        verified=_verified(line, table.images),
        contradictions=tuple(map(str, line.contradictions)),
        declared=None if declared is None else Declared(declared, _says(declared, robust, line.broken)),
        attacks=tuple(_attacks(table.attacks, line.rows)),
        broken=line.broken,
        findings=tuple(
            AuditFinding(*map(visible, (said.check, said.status.name.lower(), said.evidence, said.advice, said.source)))
            for audit in own
            for said in sorted(
                (each.finding for each in audit.findings if each.threat == table.threat),
                key=lambda finding: -finding.status,
            )
        ),
        retries=tuple(
            Retry(visible(retry.attack), retry.tried, len(retry.broken))
            for audit in own
            for retry in audit.retries
            if retry.threat == table.threat and retry.asked
        ),
        unaudited=line.unaudited or None,
        worst_class=parts.get("classes"),
        worst_group=parts.get("groups"),
        compared=None if changes is None else about_rows(changes, [*rows, *_certificates(line)]),
        rows=(*(row.key for row in rows), *(row.key for row in _certificates(line))),
    )


def _certificates(line: Line) -> tuple[Row, ...]:
    return () if line.certified is None else line.certified.rows


def _verified(line: Line, n: int) -> Figure | None:
    """What is proved; a probability is no proof."""
    found = line.certified
    if found is None or found.rate is None or found.confidence is not None:
        return None
    return _figure(found.rate, n, "Wilson", [row.key for row in found.rows])


def figure_of(row: Row, what: str) -> Figure | None:
    """The "clean" or "robust" accuracy of a row, as it recorded it; None where there is no result."""
    found = rate(row, what)
    if found is None:
        return None
    recorded = row.results.get("intervals", "").partition("(")[2].partition(")")[0]
    kind = recorded if what == "robust" or not row.stochastic else ""  # it is said of robust accuracy
    return Figure(found.value, found.low, found.high, row.results["n"], visible(kind) or None, (row.key,))


def about_rows(changes: Mapping[str, Sequence[Compared]], rows: Iterable[Row]) -> tuple[Compared, ...]:
    """Each change that is about any of these rows, once."""
    return tuple(dict.fromkeys(change for row in rows for change in changes.get(row.key, ())))


def _worst_cases(table: Table, line: Line, shares: Floats | None) -> Iterator[WorstCase]:
    """Those of the table's access levels, the highest last, and those beside; a union's rows are added later."""
    judging = [row for row, attack in zip(line.rows, table.attacks, strict=True) if done(row) and not attack.naive]
    kind = None if shares is None else method(shares)
    for over, level, found in zip(table.worst, table.levels, line.worst, strict=True):
        keys = [row.key for row in judging if row.access <= level]
        yield WorstCase(over, _figure(found, table.images, kind if over == table.worst[-1] else None, keys))
    for over, found in zip(table.beside, line.beside, strict=True):
        yield WorstCase(over, _figure(found, table.images, None, [row.key for row in judging]))


def _figure(found: Rate | None, n: int, kind: str | None, keys: Iterable[str]) -> Figure | None:
    return None if found is None else Figure(found.value, found.low, found.high, n, kind, tuple(keys))


def _says(level: float, robust: Figure | None, broken: bool) -> str:
    if robust is None:
        return "there is no worst case to hold it against"
    if broken:
        return "the audit says that the figure is not to be believed"
    if robust.low >= level:
        return "the interval's lower side reaches it"
    return "the whole interval is below it" if robust.high < level else "the interval's lower side does not reach it"


def _attacks(labels: Sequence[Label], rows: Sequence[Row | None]) -> Iterator[AttackResult]:
    for label, row in zip(labels, rows, strict=True):
        if row is None:
            if not label.naive:
                yield AttackResult(
                    str(label), None, True, False, {}, None, None, None, None, None, "not run", None, (), None
                )
            continue
        about, found = row.definition, row.results if done(row) else None
        yield AttackResult(
            attack=str(label),
            access=about["access"],
            adaptive=row.adaptive,
            targeted=about["targets"] is not None,
            settings=about["attack_settings"],
            budget=about["budget"],
            forwards=found["forwards_mean"] if found else None,
            backwards=found["backwards_mean"] if found else None,
            prepared=found.get("prepared_forwards", 0) + found.get("prepared_backwards", 0) if found else None,
            robust=figure_of(row, "robust"),
            missing=None if found else visible(row.why),
            distance_median=found["distance_median"] if found else None,
            flags=tuple((flag.label, flag.why) for flag in flags_of([row])),
            row=row.key,
        )


def _parts(line: Line, shares: Floats | None, results: Results, groups: Groups | None) -> Iterator[tuple[str, Part]]:
    """The class, and the group, that fares worst in the worst case, where there is one."""
    row = next((row for row in line.rows if done(row) and row.results["per_class"]), None)
    if row is None or shares is None:
        return
    keys = tuple(row.key for row in line.rows if done(row))
    for kind, members in members_of(row, results.arrays(row, "labels", "ids"), groups):
        rates = rates_of(shares, members)
        if not rates:
            continue
        worst = min(rates, key=lambda name: rates[name].value)
        own, gap = shares[members[worst]], largest_gap(rates)
        yield (
            kind,
            Part(
                name=visible(worst),
                best=visible(gap.best if gap else worst),
                of=len(rates),
                figure=Figure(
                    rates[worst].value, rates[worst].low, rates[worst].high, len(own), method(own) + TOGETHER, keys
                ),
                gap=Figure(gap.gap.value, gap.gap.low, gap.gap.high, len(shares), None, keys) if gap else None,
            ),
        )


def is_fault(finding: AuditFinding) -> bool:
    """Whether it is not sound, or could not be checked."""
    return finding.status != Status.SOUND.name.lower()
