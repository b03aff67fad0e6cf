"""Which cell of one results folder is which of another: rows in pairs, and what of each pair was made differently."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_local.core.errors import ConfigError, did_you_mean
from robustbench_local.core.escaping import visible
from robustbench_local.report.labels import attack_labels, defense_labels
from robustbench_local.report.results import Results
from robustbench_local.report.table import met_before
from robustbench_local.storage.row import BEHAVIOUR, READ, VERSIONS, Row

# What may differ between two runs of a cell: what a comparison is about, and images, which are paired.
MADE = ("weights_digest", *BEHAVIOUR, *VERSIONS, *READ, "attacker_digest")
IMAGES = ("data_digest", "ids", "transform")
CHOSEN = ("defense_settings", "seed")  # where nothing else is left to meet


@dataclass(frozen=True)
class Pair:
    """A cell in either folder or in both. name: as attacks and models are called where all rows of both are side by
    side; of, within: its model on its images, and these within its threat; differs: what was made differently.
    """

    name: str
    of: str
    within: str
    before: Row | None
    after: Row | None
    differs: tuple[str, ...] = ()

    @property
    def both(self) -> tuple[Row, Row]:
        """Of a cell that is in both."""
        assert self.before is not None and self.after is not None
        return self.before, self.after


def renamed(results: Results, names: Mapping[str, str]) -> Results:
    """With other names for models and defenses; ConfigError where there is no such, or where two would become one."""
    known = {name for row in results.rows for name in (row.model, row.defense)}
    for name in names:
        if name not in known:
            raise ConfigError(f'no model or defense is called "{name}"{did_you_mean(name, known)}: {_listed(known)}')
    merged = [name for name in names.values() if name in known - names.keys() or [*names.values()].count(name) > 1]
    if merged:
        raise ConfigError(f'two would be called "{merged[0]}": map one of them elsewhere as well')

    rows, certificates = (
        [
            row.changed(model=names.get(row.model, row.model), defense=names.get(row.defense, row.defense))
            for row in every
        ]
        for every in (results.rows, results.certificates)
    )
    return replace(results, rows=rows, certificates=certificates)


def pairs(before: Sequence[Row], after: Sequence[Row]) -> list[Pair]:
    """Every cell once, by name. What is left over where all else is the same meets with another seed or defense
    settings, if there is one of it on either side.
    """
    names = _names([*before, *after])
    found: list[Pair] = []
    left = [list(before), list(after)]
    for but, alone in (((*MADE, *IMAGES), False), ((*MADE, *IMAGES, *CHOSEN), True)):
        groups = [_grouped(rows, but) for rows in left]
        met: set[int] = set()
        for key, old in groups[0].items():
            new = groups[1].get(key, [])
            if len(old) == len(new) == 1 or (new and not alone):
                found.append(_pair(names, old, new))
                met |= {id(row) for row in (*old, *new)}
        left = [[row for row in rows if id(row) not in met] for rows in left]
    found += [_pair(names, [row], []) for row in left[0]] + [_pair(names, [], [row]) for row in left[1]]
    return sorted(found, key=lambda pair: pair.name)


def _grouped(rows: Iterable[Row], but: Collection[str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.of_cell(but)].append(row)
    return groups


def _pair(names: Mapping[int, tuple[str, str, str]], before: Sequence[Row], after: Sequence[Row]) -> Pair:
    """Where a folder holds a cell of several weights or image sets, the last good one speaks for it."""
    last = [max(rows, key=lambda row: (row.ok, row.created), default=None) for rows in (before, after)]
    many = [
        f"the newest of {len(rows)} rows {when}"
        for rows, when in ((before, "before"), (after, "after"))
        if len(rows) > 1
    ]
    row = last[0] or last[1]
    assert row is not None
    differs = _differs(last[0], last[1]) if last[0] and last[1] else []
    return Pair(*names[id(row)], last[0], last[1], (*differs, *many))


def _differs(before: Row, after: Row) -> list[str]:
    found = []
    for key in (*MADE, *CHOSEN):
        old, new = (row.said(key) for row in (before, after))
        if key == "defense_settings" and old != new:
            changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            found.append(f"{key}: " + ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in changed))
        elif old != new:
            whole = key in (*VERSIONS, "seed")
            found.append(f"{key} {old} -> {new}" if whole else f"other {key}")
    return [visible(each) for each in found]


def _names(rows: Sequence[Row]) -> dict[int, tuple[str, str, str]]:
    """{id of a row: (name of its cell, of its model on its images, of these within its threat)}."""
    bare = [row.without((*MADE, *IMAGES)) for row in rows]
    attacks = attack_labels(bare) if bare else []
    defenses = defense_labels(bare)
    names = {}
    for row, attack, defense in zip(rows, attacks, defenses, strict=True):
        about = row.definition
        under = f" under {met_before(row)}" if row.under else ""
        aim = f", targets: {about['targets']}" if about.get("targets") else ""
        split = "" if about.get("split", "test") == "test" else f" {about['split']}"
        where, model = f"{about['data']}{split}", f"{about['model']} / {defense}"
        within = f"{where} {about['threat']}{under}{aim}, {model}"
        names[id(row)] = tuple(map(visible, (f"{within}, {attack}", f"{where}{under}, {model}", within)))
    return names  # type: ignore[return-value]


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, names)))
