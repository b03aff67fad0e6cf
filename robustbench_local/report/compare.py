"""What changed between two results folders: the same cells, image by image, by what their rows say."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.audit.records import asked
from robustbench_local.core.errors import ConfigError, StoreError
from robustbench_local.metrics.paired import Paired, holm
from robustbench_local.metrics.paired import compare as paired
from robustbench_local.report.matching import Pair, pairs, renamed
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row, clean_shares, done, robust_shares

PARTS = ("attack", "worst case", "clean", "audit", "certified")
POWER = 0.8  # with which a drop is said to be noticed
LOST = ("only before", "failed after", "other data", "no image in common")

Shares = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # ids (N,) and shares (N,) in [0, 1]


@dataclass(frozen=True)
class Change:
    """One cell, worst case, clean accuracy, audit or certified share in both folders: `part` says which.

    before, after: accuracies in [0, 1] on the images that both have, without what an audit broke; None where there is
    no result. pair: what these images say: those lost were robust only before, those gained only after. images: how
    many either folder has. p: of the paired test (McNemar's exact one; of random models, sign flips), adjusted by Holm
    (1979) for all that was tested. differs: what was made differently. rows_before, rows_after: keys of
    the rows that it is about.
    """

    part: str
    name: str
    what: str
    before: float | None = None
    after: float | None = None
    pair: Paired | None = None
    p: float | None = None
    images: tuple[int, int] | None = None
    differs: tuple[str, ...] = ()
    rows_before: tuple[str, ...] = ()
    rows_after: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Significantly less robust, or less accurate."""
        return self.what == "worse"

    @property
    def lost(self) -> bool:
        """A result that is no longer there, or that cannot be compared."""
        return self.what in LOST


def compare(
    before: Results, after: Results, alpha: float = 0.05, names: Mapping[str, str] | None = None
) -> list[Change]:
    """Every cell of two folders, then the worst case over the attacks that both have, clean accuracy, audits, and what
    is certified in both.

    A cell is the same where all of its definition is, but for weights, versions and images; of the images, those that
    both have are compared. Rows are compared as attacks left them, whatever an audit found afterwards. alpha: the risk
    of calling luck a change, over all that is compared. names: {before: after} of models and defenses renamed since.
    ConfigError for an alpha outside (0, 1) or a name that is not there; StoreError where there is no cell in common.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}: the risk of calling luck a change must lie in (0, 1), as 0.05 does")
    if names:
        before = renamed(before, names)
    found = pairs(before.rows, after.rows)
    if not any(pair.before and pair.after for pair in found):
        raise StoreError(
            "the two folders have no cell in common: the same data, model, defense, attack and threat must be in both"
            f" (before: {_models(before)}; after: {_models(after)}; --map OLD=NEW renames a model or a defense)"
        )
    both = _Both(before, after)
    changes = [both.cell(pair) for pair in found]
    met = [pair for pair, change in zip(found, changes, strict=True) if change.pair]
    changes += [*both.worst_cases(met), *both.clean(met), *both.audits(met), *both.certified(met)]
    tested = [(place, change.pair) for place, change in enumerate(changes) if change.pair]
    for (place, pair), p in zip(tested, holm([pair.p for _, pair in tested]), strict=True):
        changes[place] = replace(changes[place], p=p, what=_word(pair, p, alpha))
    return changes


def json_text(changes: Sequence[Change]) -> str:
    """All of them, for another program; accuracies in [0, 1]."""
    return json.dumps({"changes": [asdict(change) for change in changes]}, indent=1) + "\n"


@dataclass(frozen=True)
class _Both:
    """Two folders and what is asked of them."""

    before: Results
    after: Results

    def cell(self, pair: Pair) -> Change:
        old, new = pair.before, pair.after
        change = _about([pair], Change(PARTS[0], pair.name, "", _robust(old), _robust(new), differs=pair.differs))
        if done(old) and done(new):
            return self._paired(change, old, new, _robust_shares(self.before, old), _robust_shares(self.after, new))
        if done(old):
            return replace(change, what="failed after" if new else "only before")
        if done(new):
            return replace(change, what="failed before" if old else "only after")
        return replace(change, what="failed in both" if old and new else "failed")

    def worst_cases(self, met: Sequence[Pair]) -> Iterator[Change]:
        """Per image the least over the attacks that both have, where these are several."""
        aimed = [pair for pair in met if _is_aimed(pair.both[0])]
        for (name, _), group in _by(aimed, lambda pair: (pair.within, pair.both[0].of_images())).items():
            if len(group) > 1:
                old = _least([_robust_shares(self.before, pair.both[0]) for pair in group])
                new = _least([_robust_shares(self.after, pair.both[1]) for pair in group])
                change = _about(group, Change(PARTS[1], f"{name}, worst case of {len(group)} attacks", ""))
                yield self._paired(change, *group[0].both, old, new)

    def clean(self, met: Sequence[Pair]) -> Iterator[Change]:
        """Of each model, on the images of the cell that has most of them in common."""
        for name, group in _by(met, lambda pair: pair.of).items():
            found = []
            first: dict[str, Pair] = {}
            for pair in group:
                first.setdefault(_images(pair), pair)
            for pair in first.values():
                (old, new), change = pair.both, _about([pair], Change(PARTS[2], f"{name}, clean", ""))
                before, after = _clean_shares(self.before, old), _clean_shares(self.after, new)
                found.append(self._paired(change, old, new, before, after))
            yield max(found, key=lambda one: one.pair.n if one.pair else 0)

    def audits(self, met: Sequence[Pair]) -> Iterator[Change]:
        """What was robust when attacked once more, of the images that both audits asked about."""
        for name, group in _by(met, lambda pair: pair.within).items():
            old = _audited(self.before, [pair.both[0] for pair in group])
            new = _audited(self.after, [pair.both[1] for pair in group])
            for attack in sorted({*old, *new}):
                change = _about(group, Change(PARTS[3], f"{name}, audit by {attack}", ""))
                if attack not in old or attack not in new:
                    yield replace(change, what="audited only before" if attack in old else "audited only after")
                else:
                    yield self._paired(change, *group[0].both, old[attack], new[attack], "audited other images")

    def certified(self, met: Sequence[Pair]) -> Iterator[Change]:
        """Of each model within each threat, where both folders have a certificate."""
        for name, group in _by(met, lambda pair: pair.within).items():
            old, new = group[0].both
            before, after = self.before.from_below.shares(old), self.after.from_below.shares(new)
            if before is not None and after is not None:
                keys = [
                    tuple(row.key for row in known.rows) if (known := side.from_below.of(row)) else ()
                    for side, row in ((self.before, old), (self.after, new))
                ]
                change = Change(PARTS[4], f"{name}, certified", "", rows_before=keys[0], rows_after=keys[1])
                yield self._paired(change, old, new, before, after)

    def _paired(
        self, change: Change, old: Row, new: Row, before: Shares, after: Shares, none: str = "no image in common"
    ) -> Change:
        """The change on the images of both; data that is not the same is not compared."""
        change = replace(change, images=(len(before[0]), len(after[0])))
        _, first, second = np.intersect1d(before[0], after[0], return_indices=True)
        if not len(first):
            return replace(change, what=none)
        if self._is_other_data(old, new):
            return replace(change, what="other data")
        pair = paired(before[1][first], after[1][second])
        return replace(change, before=pair.first, after=pair.second, pair=pair)

    def _is_other_data(self, old: Row, new: Row) -> bool:
        """Digests are of the judged images: of other selections only the labels can tell whether data is the same."""
        if old.definition["data_digest"] == new.definition["data_digest"]:
            return False
        one, two = self.before.arrays(old, "ids", "labels"), self.after.arrays(new, "ids", "labels")
        _, first, second = np.intersect1d(one["ids"], two["ids"], return_indices=True)
        same_labels = np.array_equal(one["labels"][first], two["labels"][second])
        return np.array_equal(one["ids"], two["ids"]) or not same_labels


def _about(group: Sequence[Pair], change: Change) -> Change:
    """The change, with the keys of what it is about."""
    before, after = (
        [row.key for row in rows if row] for rows in zip(*((p.before, p.after) for p in group), strict=True)
    )
    return replace(change, rows_before=tuple(before), rows_after=tuple(after))


def _robust_shares(results: Results, row: Row) -> Shares:
    """By the row alone: each image's share of draws that are robust, which is 0 or 1 of a fixed model."""
    arrays = results.arrays(row, "ids", "robust", "bits")
    return arrays["ids"], robust_shares(arrays)


def _clean_shares(results: Results, row: Row) -> Shares:
    arrays = results.arrays(row, "ids", "clean", "clean_bits")
    return arrays["ids"], clean_shares(arrays)


def _least(each: Sequence[Shares]) -> Shares:
    """On the images of all, the least share."""
    ids = functools.reduce(np.intersect1d, (ids for ids, _ in each))
    orders = [np.argsort(own) for own, _ in each]
    common = [shares[order][np.isin(own[order], ids)] for order, (own, shares) in zip(orders, each, strict=True)]
    return ids, np.minimum.reduce(common)


def _audited(results: Results, rows: Sequence[Row]) -> dict[str, Shares]:
    """{attack: which of the images that an audit of these rows asked about are robust to it}; the last one of each."""
    own = {row.key for row in rows}
    found: dict[str, Shares] = {}
    for audit in results.audits.that_saw(own):
        for retry in audit.retries:
            if retry.asked and retry.threat == rows[0].threat:
                ids = asked(
                    retry,
                    audit,
                    results.good,
                    lambda row: results.arrays(row, "robust")["robust"],
                    lambda row: results.arrays(row, "ids")["ids"],
                )
                if ids is not None:
                    found[retry.attack] = ids, 1.0 - np.isin(ids, retry.broken)
    return found


def _images(pair: Pair) -> str:
    """Which images either side chose: of the same ones, as many are in common."""
    return str([(row.definition["ids"], row.definition["data_digest"]) for row in pair.both])


def _is_aimed(row: Row) -> bool:
    """Whether it counts in a worst case."""
    return row.adaptive and not row.corrupts


def _by(met: Sequence[Pair], key: Any) -> dict[Any, list[Pair]]:
    groups: dict[Any, list[Pair]] = defaultdict(list)
    for pair in met:
        groups[key(pair)].append(pair)
    return groups


def _word(pair: Paired, p: float, alpha: float) -> str:
    if not pair.only_first and not pair.only_second:
        return "same"
    return "within luck" if p >= alpha else "worse" if pair.difference.value > 0 else "better"


def _robust(row: Row | None) -> float | None:
    return row.results["robust_accuracy"] if done(row) else None


def _models(results: Results) -> str:
    return ", ".join(sorted({f"{row.model} / {row.defense}" for row in results.rows}))
