"""Rows -> tables of robust accuracy: one per data set and threat model, a line per defended model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audits, lowered
from robustbench_local.core import resubmission
from robustbench_local.core.access import Access
from robustbench_local.core.escaping import visible
from robustbench_local.metrics.paired import Rank, ranks
from robustbench_local.metrics.rates import Rate as Rate
from robustbench_local.metrics.rates import rate as rate_of
from robustbench_local.report.certified import Certificates, Certified, Contradiction
from robustbench_local.report.labels import Label, attack_labels, defense_labels, with_draws
from robustbench_local.report.text import percent
from robustbench_local.storage.row import DRAWN, Row, done, robust_shares, telling_none_apart
from robustbench_local.storage.store import Store

DRAWS = "models that draw random numbers"
SharesOf = Callable[[Row], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Line:
    """One defended model. rows: its row per attack of the table, or None; worst: per access level of the table;
    certified: what no attack can break, None where nobody asked; contradictions: attacks that did;
    faults: what an audit found that is not sound; unaudited: why there was none, or not of all.

    rank: among the table's lines, by the worst case of the highest access level; a broken line, of which the audit says
    that its figure is not to be believed, has none and comes last. resubmitted: of a random model, where ten draws of
    each answer have to be right, see core/resubmission.py. union: of the table's union, if any.
    """

    model: str
    defense: Label
    rows: tuple[Row | None, ...]
    worst: tuple[Rate | None, ...]
    certified: Certified | None = None
    contradictions: tuple[Contradiction, ...] = ()
    faults: tuple[Finding, ...] = ()
    rank: Rank | None = None
    resubmitted: tuple[Rate | None, ...] = ()
    union: tuple[Rate | None, ...] = ()
    unaudited: str = ""

    @property
    def beside(self) -> tuple[Rate | None, ...]:
        """In the order of the table's."""
        return (*self.resubmitted, *self.union)

    @property
    def broken(self) -> bool:
        return any(fault.status is Status.BROKEN for fault in self.faults)

    @property
    def clean(self) -> Rate | None:
        return next((rate(row, "clean") for row in self.rows if done(row)), None)

    @property
    def robust(self) -> tuple[Rate | None, ...]:
        """Per attack; None where the cell failed or is missing."""
        return tuple(rate(row, "robust") for row in self.rows)


@dataclass(frozen=True)
class Table:
    """Lines over the same images within the same threat model; a random model is never in one with a fixed one.

    resubmitted: the name of the column for an attacker who may ask a random model again, where any line has a figure.
    union: the name of the worst case over this threat model and those of other norms, where there are any.
    under: the corruption and severity that images met before. grid: whose table it is, where several are shown.
    levels: of each worst case, the most that its attacks see.
    """

    data: str
    split: str
    images: int
    threat: str
    targets: str | None
    stochastic: bool
    attacks: tuple[Label, ...]
    worst: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    resubmitted: tuple[str, ...] = ()
    union: tuple[str, ...] = ()
    under: str | None = None
    grid: str = ""
    levels: tuple[Access, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        """What other columns there are than attacks and worst cases of access levels."""
        return (*self.resubmitted, *self.union)

    @property
    def within(self) -> str:
        return self.threat if self.under is None else f"{self.threat} under {self.under}"

    @property
    def title(self) -> str:
        parts = [f"{self.data} {self.split}", self.within, f"{self.images} images"]
        parts += [f"targets: {self.targets}"] * (self.targets is not None) + [DRAWS] * self.stochastic
        return ", ".join([*parts, *[self.grid] * bool(self.grid)])

    @property
    def certifies(self) -> bool:
        """Whether anybody asked what is certain of its models."""
        return any(line.certified is not None for line in self.lines)


def robust_tables(
    rows: Iterable[Row], shares_of: SharesOf, audits: Audits | None = None, certificates: Certificates | None = None
) -> list[Table]:
    """The tables of rows; shares_of(row) -> (N,) gives each image's robustness of a good row: 0, 1 or a share of draws.

    certificates: what is known of the models from below. audits: all there are, so that what has none says so; None:
    audits are not spoken of.

    The worst case is per image: the minimum over all attacks of that access level or below, then the mean. Where one of
    these cells failed or is missing there is none, and the line comes after those that have one.
    """
    known: dict[str, npt.NDArray[np.float64]] = {}

    def once(row: Row) -> npt.NDArray[np.float64]:
        return known[row.key] if row.key in known else known.setdefault(row.key, shares_of(row))

    found = []
    aimed = [row for row in rows if not row.corrupts]  # those have tables of their own
    for _, same_images in sorted(_by(Row.of_images, aimed).items(), key=_weight):
        by_threat = _by(lambda row: row.threat, same_images)
        within = [list(_by(Row.of_model, group).values()) for _, group in sorted(by_threat.items())]
        for stochastic in (False, True):
            chosen = [[each for each in models if _is_stochastic(each) is stochastic] for models in within]
            tables = [_table(groups, stochastic, once, audits, certificates) for groups in chosen if groups]
            found += _with_union(tables, once)
    return found


def _weight(group: tuple[str, list[Row]]) -> tuple[str, int, str]:
    """Of each data set the tables of most images come first."""
    images, rows = group
    return rows[0].definition["data"], -rows[0].images, images


def _place(line: Line) -> tuple[bool, float, str, str]:
    """Where a line comes among others."""
    worst = line.worst[-1]
    return line.broken, -(worst.value if worst else -1.0), line.model, str(line.defense)


def shares_in(store: Store, audits: Audits | None = None) -> SharesOf:
    """Reads each image's robustness from the arrays beside a row, lowered by what an audit broke."""
    known = audits or Audits()

    def shares_of(row: Row) -> npt.NDArray[np.float64]:
        arrays = store.arrays(row.key, "robust", "bits", "ids")
        return lowered(robust_shares(arrays), arrays["ids"], row.key, known)

    return shares_of


def rate(row: Row | None, what: str) -> Rate | None:
    """The "clean" or "robust" accuracy of a row; None where there is no result."""
    if not done(row):
        return None
    results: Mapping[str, Any] = row.results
    return Rate(results[f"{what}_accuracy"], *results[f"{what}_interval"])


def _table(
    groups: Sequence[list[Row]],
    stochastic: bool,
    shares_of: SharesOf,
    audits: Audits | None,
    certificates: Certificates | None,
) -> Table:
    alike = telling_none_apart(groups)
    found = [{row.of_attack(alike): row for row in group} for group in groups]  # of each model its row per attack
    columns = {attack: row for own in found for attack, row in own.items()}  # one row to speak for each
    order = sorted(columns, key=lambda attack: (columns[attack].access, attack))
    attacks = attack_labels([columns[attack] for attack in order], alike)
    models = defense_labels([group[0] for group in groups])
    if stochastic and {*DRAWN} <= {*alike}:
        models = with_draws(models, [group[0] for group in groups])
    judging = {attack: row for attack, row in columns.items() if row.adaptive}
    levels = sorted({row.access for row in judging.values()} - {Access.NONE}) or [Access.NONE]
    lines = []
    for model, group, own in zip(models, groups, found, strict=True):
        cells = {attack: own.get(attack) for attack in order}
        worst = [
            _rate(least([cells[attack] for attack, row in judging.items() if row.access <= level], shares_of))
            for level in levels
        ]
        name, also = visible(group[0].model), _of_audits(group, audits) | _from_below(group, shares_of, certificates)
        lines.append(Line(name, model, tuple(cells.values()), tuple(worst), **also))
    lines = _ranked(lines, attacks, shares_of)
    resubmitted: list[Rate | None] = [_resubmitted(line, attacks, shares_of) if stochastic else None for line in lines]
    if any(resubmitted):
        lines = [replace(line, resubmitted=(each,)) for line, each in zip(lines, resubmitted, strict=True)]
    lines.sort(key=_place)
    row = groups[0][0]
    about = row.definition
    return Table(
        data=visible(about["data"]),
        split=visible(about["split"]),
        images=row.images,
        threat=visible(about["threat"]),
        targets=visible(about["targets"]) if about.get("targets") else None,
        stochastic=stochastic,
        attacks=tuple(attacks),
        lines=tuple(lines),
        worst=tuple("worst case" if len(levels) == 1 else f"worst case, {level.name.lower()}" for level in levels),
        notes=(*_over_seeds(lines, attacks, shares_of), *_notes(lines, attacks)),
        resubmitted=(resubmission.NAME,) if any(resubmitted) else (),
        under=met_before(row),
        levels=tuple(levels),
    )


def least(cells: Iterable[Row | None], shares_of: SharesOf) -> npt.NDArray[np.float64] | None:
    """(N,) the least of each image's shares over these cells; None where one of them failed or is missing."""
    shares = [shares_of(row) if done(row) else None for row in cells]
    good = [each for each in shares if each is not None]
    return np.minimum.reduce(good) if good and len(good) == len(shares) else None


def worst_case(table: Table, line: Line, shares_of: SharesOf) -> npt.NDArray[np.float64] | None:
    """(N,) shares that are robust to all attacks of the table, but for the naive; None as in least()."""
    return least(_judging(line, table.attacks), shares_of)


def _resubmitted(line: Line, attacks: Sequence[Label], shares_of: SharesOf) -> Rate | None:
    """The worst case of an attacker who may ask again; None where that is not known after each attack."""
    cells = _judging(line, attacks)
    if not all(done(row) for row in cells):
        return None
    found = [resubmission.withstands(shares_of(row), int(row.said("draws"))) for row in cells if row is not None]
    known = [each for each in found if each is not None]
    return rate_of(np.minimum.reduce(known)) if known and len(known) == len(found) else None


def _judging(line: Line, attacks: Sequence[Label]) -> list[Row | None]:
    return [row for row, attack in zip(line.rows, attacks, strict=True) if not attack.naive]


def _ranked(lines: Sequence[Line], attacks: Sequence[Label], shares_of: SharesOf) -> list[Line]:
    shares = {
        str(place): None if line.broken else least(_judging(line, attacks), shares_of)
        for place, line in enumerate(lines)
    }
    found = ranks({place: each for place, each in shares.items() if each is not None})
    return [replace(line, rank=found.get(str(place))) for place, line in enumerate(lines)]


def _with_union(tables: Sequence[Table], shares_of: SharesOf) -> list[Table]:
    """The tables of the same images, with the worst case over all of them as a column, if they are of several norms.

    Norm none is no ball, and no part of it. A model that lacks one of the tables has a dash.
    """
    balls = [table for table in tables if table.threat != "none"]
    widest = {table.threat.partition(":")[0]: table.threat for table in sorted(balls, key=_eps)}
    if len(widest) < 2:
        return list(tables)
    name = f"union of {', '.join(sorted(widest.values()))}"
    shares: dict[str, list[npt.NDArray[np.float64] | None]] = defaultdict(list)
    for table in balls:
        for line in table.lines:
            shares[identity_of(line)].append(worst_case(table, line, shares_of))
    unions: dict[str, Rate | None] = {}
    for model, each in shares.items():
        good = [one for one in each if one is not None]
        unions[model] = _rate(np.minimum.reduce(good)) if len(good) == len(balls) else None
    return [
        replace(
            table, union=(name,), lines=tuple(replace(line, union=(unions[identity_of(line)],)) for line in table.lines)
        )
        if table.threat != "none"
        else table
        for table in tables
    ]


def identity_of(line: Line) -> str:
    """Which model a line is of, in whatever table."""
    return next(row.of_model() for row in line.rows if row is not None)


def _is_stochastic(group: Iterable[Row]) -> bool:
    return any(row.stochastic for row in group)


def _eps(table: Table) -> float:
    return next(row.eps for line in table.lines for row in line.rows if row is not None)


def _rate(shares: npt.NDArray[np.float64] | None) -> Rate | None:
    return None if shares is None else rate_of(shares)


def _of_audits(group: Sequence[Row], audits: Audits | None) -> dict[str, Any]:
    """{faults, unaudited} of the audits that saw rows of this group, within its threat."""
    if audits is None:
        return {}
    keys = {row.key for row in group if done(row)}
    threat = group[0].threat
    own = audits.that_saw(keys)
    left = keys.difference(*(audit.rows for audit in own))
    why = [visible(" ".join(reason.split())) for audit in own for reason in audit.unchecked(threat)]
    if left and own:
        why.append(f"{len(left)} of {len(keys)} attacks ran since")
    elif left:
        why.append("no audit of it is kept beside its rows")
    return {"faults": tuple(fault for audit in own for fault in audit.faults(threat)), "unaudited": "; ".join(why)}


def _from_below(group: Sequence[Row], shares_of: SharesOf, certificates: Certificates | None) -> dict[str, Any]:
    """{certified, contradictions} of a model within a threat; what an attack contradicts is not certified."""
    if certificates is None:
        return {}
    known = certificates.of(group[0])
    denied = tuple(found for row in group if done(row) for found in certificates.denied(row, shares_of(row)))
    if known is not None and denied:
        known = replace(known, rate=None, missing="an attack contradicts it, as a note says")
    return {"certified": known, "contradictions": denied}


def met_before(row: Row) -> str | None:
    """The corruption that the images of a row had met, as "fog:3", in characters that can be seen."""
    return None if row.under is None else visible(row.under)


def _over_seeds(lines: Sequence[Line], attacks: Sequence[Label], shares_of: SharesOf) -> Iterator[str]:
    """Of each attack that ran from several seeds: what all of them leave, image by image, and each alone."""
    for line in lines:
        if len({row.said("seed") for row in line.rows if row is not None}) < 2:
            continue
        alike: dict[str, list[tuple[Label, Row]]] = defaultdict(list)
        for attack, row in zip(attacks, line.rows, strict=True):
            if done(row):
                alike[row.of_cell(("seed",))].append((attack, row))
        for each in alike.values():
            worst = least([row for _, row in each], shares_of)
            if worst is None or len(each) == 1:
                continue
            alone = [percent(row.results["robust_accuracy"]) for _, row in each]
            label, seeds = each[0][0], ", ".join(str(row.said("seed")) for _, row in each)
            name = replace(label, details=tuple(detail for detail in label.details if not detail.startswith("seed=")))
            yield (
                f"{line.model} / {line.defense}, {name}, seeds {seeds}: {percent(float(worst.mean()))} % in the worst"
                f" of them, image by image; {', '.join(alone)} % each"
            )


def _notes(lines: Sequence[Line], attacks: Sequence[Label]) -> Iterator[str]:
    """Why a cell is empty, and what was flagged; attacks that share a reason share a note."""
    for line in lines:
        said: dict[str, list[str]] = defaultdict(list)
        for attack, row in zip(attacks, line.rows, strict=True):
            if row is None and attack.naive:
                continue  # nothing to leave out
            if remark := _remark(row):
                said[remark].append(str(attack))
        for remark, names in said.items():
            yield f"{line.model} / {line.defense}, {', '.join(names)}: {remark}"
        if line.certified is not None and line.certified.remark:
            yield f"{line.model} / {line.defense}: {line.certified.remark}"
        for contradiction in line.contradictions:
            yield f"CONTRADICTION: {contradiction}"
        if line.unaudited:
            yield f"{line.model} / {line.defense}: not audited: {line.unaudited}"
        for fault in line.faults:
            found = f"audit, {fault.status.name.lower()}: {fault.check} ({fault.evidence})"
            yield f"{line.model} / {line.defense}, {visible(found)}"


def _remark(row: Row | None) -> str:
    if row is None:
        return "not run"
    if done(row):
        return visible(", ".join(row.results["flags"]))
    return visible(row.why)


def _by(key: Callable[[Row], str], rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
