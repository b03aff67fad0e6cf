"""What changed between two results folders: the same cells, image by image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from robustbench_local.errors import StoreError
from robustbench_local.metrics.paired import Paired, holm
from robustbench_local.metrics.paired import compare as paired
from robustbench_local.report.results import Results
from robustbench_local.report.table import done
from robustbench_local.report.text import DASH, percent, visible
from robustbench_local.store import Row

# What may differ between two runs of a cell: weights and versions are what a comparison is about, images are paired.
_CELL = (
    "data", "split", "model", "defense", "defense_settings", "attack", "attack_settings", "threat", "targets", "count",
    "budget", "precision", "seed", "eot", "draws",
)  # fmt: skip
_LOOSE = tuple(key for key in _CELL if key not in ("defense_settings", "seed"))


@dataclass(frozen=True)
class Change:
    """One cell in both folders. before and after are robust accuracies in [0, 1], None where there is no result.

    pair: what the images that both share say: those lost stood only before, those gained only after. p: of the paired
    test (McNemar's exact one; of random models, sign flips), adjusted by Holm (1979) for the cells compared.
    """

    name: str
    what: str
    before: float | None = None
    after: float | None = None
    pair: Paired | None = None
    p: float | None = None

    @property
    def worse(self) -> bool:
        """Significantly less robust, or a result that is no longer there or cannot be compared."""
        return self.what in ("worse", "only before", "failed after", "other data", "no image in common")


def compare(before: Results, after: Results, alpha: float = 0.05) -> list[Change]:
    """Every cell of two folders, in the order of their names. StoreError where they have no cell in common.

    A cell of one folder meets that of the other with the same data, model, defense, attack and threat; weights and
    versions may differ.
    """
    pairs = _pairs(before.rows, after.rows)
    if not any(old and new for _, old, new in pairs):
        raise StoreError(
            "the two folders have no cell in common: the same data, model, defense, attack and threat must be in both"
        )
    changes = [_change(name, old, new, before, after) for name, old, new in pairs]
    tested = [(place, change.pair) for place, change in enumerate(changes) if change.pair]
    for (place, pair), p in zip(tested, holm([pair.p for _, pair in tested]), strict=True):
        changes[place] = replace(changes[place], p=p, what=_word(pair, p, alpha))
    return changes


def show(changes: Sequence[Change], console: Console | None = None) -> None:
    """Print the changes, worst first."""
    console = console or Console()
    grid = Grid("cell", "images", "before", "after", "lost", "gained", "p", "", box=box.SIMPLE_HEAD)
    for column in grid.columns[1:7]:
        column.justify = "right"
    for change in sorted(changes, key=lambda c: (not c.worse, c.p if c.p is not None else 1.0)):
        style = "red" if change.worse else "green" if change.what == "better" else "dim"
        figures = [percent(rate) if rate is not None else DASH for rate in (change.before, change.after)]
        pair, lost, gained, p = DASH, DASH, DASH, DASH
        if change.pair:
            pair, lost, gained = (str(n) for n in (change.pair.n, change.pair.only_first, change.pair.only_second))
            p = f"{change.p:.3g}"
        grid.add_row(Text(change.name), pair, *figures, lost, gained, p, Text(change.what, style))
    console.print(grid)
    counts = {what: sum(c.what == what for c in changes) for what in dict.fromkeys(c.what for c in changes)}
    console.print(
        f"{len(changes)} cells: " + ", ".join(f"{count} {what}" for what, count in counts.items())
        + ". Robust accuracy in % on the images that both have; p: exact McNemar test, adjusted by Holm."
    )  # fmt: skip


def _pairs(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[str, Row | None, Row | None]]:
    """(name, row before, row after); where settings are part of what changed, what is left over meets by name."""
    found: list[tuple[Row | None, Row | None]] = []
    left = [list(before), list(after)]
    for keys in (_CELL, _LOOSE):
        groups = [_grouped(rows, keys) for rows in left]
        met: set[int] = set()
        for key, old in groups[0].items():
            new = groups[1].get(key, [])
            if len(old) == len(new) == 1 or (keys is _CELL and new):
                found.append((_newest(old), _newest(new)))
                met |= {id(row) for row in (*old, *new)}
        left = [[row for row in rows if id(row) not in met] for rows in left]
    found += [(row, None) for row in left[0]] + [(None, row) for row in left[1]]
    told = _telling([*before, *after])
    return sorted(((_name(old or new, told), old, new) for old, new in found), key=lambda pair: pair[0])


def _telling(rows: Iterable[Row]) -> dict[str, set[str]]:
    """{attack: those of its settings that tell its rows apart}."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for key, value in row["definition"]["attack_settings"].items():
            values[row["definition"]["attack"], key].add(str(value))
    told: dict[str, set[str]] = defaultdict(set)
    for (attack, key), found in values.items():
        if len(found) > 1:
            told[attack].add(key)
    return told


def _grouped(rows: Iterable[Row], keys: Sequence[str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[json.dumps([row["definition"].get(key) for key in keys], sort_keys=True)].append(row)
    return groups


def _newest(rows: Sequence[Row]) -> Row:
    """Where a folder holds a cell of several weights or image sets, the last good one speaks for it."""
    return max(rows, key=lambda row: (row["status"] == "ok", row.get("created", "")))


def _name(row: Row | None, told: dict[str, set[str]]) -> str:
    assert row is not None
    about = row["definition"]
    own = [f"{key}={value}" for key, value in about["attack_settings"].items() if key in told[about["attack"]]]
    attack = f"{about['attack']} ({', '.join(own)})" if own else about["attack"]
    return visible(f"{about['data']} {about['threat']}, {about['model']} / {about['defense']}, {attack}")


def _change(name: str, old: Row | None, new: Row | None, before: Results, after: Results) -> Change:
    if not done(old) or not done(new):
        if done(old):
            return Change(name, "failed after" if new else "only before", before=_robust(old))
        if done(new):
            return Change(name, "failed before" if old else "only after", after=_robust(new))
        return Change(name, "failed in both" if old and new else "failed")
    old_arrays, new_arrays = before.arrays(old, "ids", "labels"), after.arrays(new, "ids", "labels")
    same_ids = np.array_equal(old_arrays["ids"], new_arrays["ids"])
    _, first, second = np.intersect1d(old_arrays["ids"], new_arrays["ids"], return_indices=True)
    if not len(first):
        return Change(name, "no image in common", before=_robust(old), after=_robust(new))
    # A digest is of the judged images: of other selections only the labels can tell whether the data is the same.
    other = old["definition"]["data_digest"] != new["definition"]["data_digest"]
    if other and (same_ids or not np.array_equal(old_arrays["labels"][first], new_arrays["labels"][second])):
        return Change(name, "other data", before=_robust(old), after=_robust(new))
    pair = paired(before.standing(old)[first], after.standing(new)[second])
    return Change(name, "", pair.first, pair.second, pair)


def _word(pair: Paired, p: float, alpha: float) -> str:
    if not pair.only_first and not pair.only_second:
        return "same"
    return "within luck" if p >= alpha else "worse" if pair.difference.value > 0 else "better"


def _robust(row: Row) -> float:
    value: Any = row["results"]["robust_accuracy"]
    return float(value)
