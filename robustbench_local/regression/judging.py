"""From what was measured, and what the lock knows, to an outcome: the statistics of a check."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from robustbench_local.metrics.groups import by_class
from robustbench_local.metrics.paired import compare, noticeable
from robustbench_local.metrics.rates import Rate, rate
from robustbench_local.regression.claims import floors, not_worse, too_few
from robustbench_local.regression.figures import ATTACKS, Figures
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.lock import UPDATE, Baseline, Entry
from robustbench_local.regression.measured import Measured
from robustbench_local.regression.outcome import (
    ANCHOR,
    FIRST,
    LAST,
    LESS_ROBUST,
    MASKED,
    Claim,
    Comparison,
    Doubt,
    Outcome,
)
from robustbench_local.regression.settings import Check
from robustbench_local.regression.shares import Shares

POWER = 0.8
SMALLEST = 3  # distances that are named


def judged(
    measured: Measured,
    check: Check,
    entry: Entry | None,
    known: KnownImages | None,
    alpha: float,
    updating: bool = False,
    against: str = LAST,
) -> Outcome:
    """The outcome of a check whose limits are alpha, to be lowered for all else that is tested (multiplicity.settled).

    entry: what the lock knows of it, known: the images that broke the last model; None where there are none. updating:
    what is found is to be the lock's new state, so that being worse than the old one is no failure. against: what the
    entry's model is called, LAST of a lock; FIRST of two that are compared whatever else is asked.
    """
    outcome, figures = replace(_about(measured, check), new=entry is None, updating=updating), measured.figures
    if figures is None:
        return outcome
    problems, comparisons, claims = [*outcome.problems], list[Comparison](), list[Claim]()
    faults = [] if entry is None else entry.faults(measured)
    compares = check.compares or against == FIRST
    if compares and not updating:
        problems += faults or _unknown(check, entry)
    replayed = None
    if entry is not None and not faults:
        baselines = {against: entry.last} | ({} if entry.anchor is None else {ANCHOR: entry.anchor})
        if compares:
            comparisons += _compared(measured, figures, baselines, alpha)
            outcome = _what_changed(outcome, measured, figures, entry.last)
        if known is not None and ATTACKS in figures.shares:
            replayed = measured.replayed(known)
            comparisons.append(_masked(measured, figures, replayed, against, alpha))
        if check.margin is not None:
            problems += too_few(figures, baselines)
            claims += not_worse(check.margin, figures, baselines, replayed, alpha)
    claims += floors(check, measured, figures, replayed)
    return replace(
        outcome,
        rates={"clean": rate(figures.clean), **{name: rate(each) for name, each in figures.shares.items()}},
        random=figures.random,
        worst_class=_worst_class(measured, figures),
        problems=tuple(problems),
        comparisons=tuple(comparisons),
        claims=tuple(claims),
        replayed=None if replayed is None else rate(replayed),
    )


def _about(measured: Measured, check: Check) -> Outcome:
    """What was measured, and what speaks against believing it."""
    images = measured.images
    return Outcome(
        name=check.key,
        settings={key: value for key, value in asdict(check).items() if value is not None},
        n=len(images),
        doubts=tuple(
            Doubt(each.check, each.status.name.lower(), each.evidence, each.advice) for each in measured.doubts
        ),
        problems=tuple(_doubted(measured)),
        suite=measured.suite,
        left_out=measured.left_out,
        identity=measured.identity,
        rows=tuple(row.key for row in measured.results.rows if row.ok),
        data={"name": images.name, "split": images.split, "digest": images.digest},
    )


def _doubted(measured: Measured) -> Iterator[str]:
    for each in measured.failed:
        yield f"an attack of the suite {each}"
    if measured.figures is None:
        yield f"no attack of the suite could be run: {'; '.join(measured.left_out) or 'it has none'}"
    for doubt in measured.doubts:
        yield f"the audit calls the model {doubt.status.name.lower()}: {doubt.check}: {doubt.evidence}"


def _unknown(check: Check, entry: Entry | None) -> list[str]:
    if entry is not None:
        return []
    return [f'the lock has no entry "{check.key}" to compare with: write it with {UPDATE}, or give a floor (at_least)']


def _compared(
    measured: Measured, figures: Figures, baselines: Mapping[str, Baseline], alpha: float
) -> Iterator[Comparison]:
    ids = np.asarray(measured.images.ids.cpu())
    for against, baseline in baselines.items():
        for of, now in figures.shares.items():
            yield _comparison(LESS_ROBUST, of, against, ids, baseline.shares[of], now, alpha)


def _masked(measured: Measured, figures: Figures, replayed: Shares, against: str, alpha: float) -> Comparison:
    """The attacks of now against the images of then, both on the model of now.

    Of an unchanged model the two are exchangeable, whichever images a lucky attack finds; of a model that only hides
    its gradients the attacks find less than is known to be there.
    """
    ids = np.asarray(measured.images.ids.cpu())
    return _comparison(MASKED, ATTACKS, against, ids, figures.shares[ATTACKS], replayed, alpha)


def _comparison(
    kind: str, of: str, against: str, ids: npt.NDArray[np.int64], before: Shares, after: Shares, alpha: float
) -> Comparison:
    paired, apart = compare(before, after, "greater"), before - after
    whole = bool(np.isin(apart, (-1, 0, 1)).all())
    found = Comparison(
        kind=kind,
        of=of,
        against=against,
        n=paired.n,
        before=paired.first,
        after=paired.second,
        lost=tuple(ids[apart > 0].tolist()),
        gained=tuple(ids[apart < 0].tolist()),
        difference=paired.difference,
        p=paired.p,
        limit=alpha,
        spread=None if whole else float(apart.std(ddof=1)),
        noticeable=None,
    )
    return replace(found, noticeable=_noticeable(found, alpha))


def within(outcome: Outcome, limit: float) -> Outcome:
    """The same where p must be below that limit in all comparisons, and what each would have noticed then."""
    found = [
        each if each.limit == limit else replace(each, limit=limit, noticeable=_noticeable(each, limit))
        for each in outcome.comparisons
    ]
    return replace(outcome, comparisons=tuple(found))


def _noticeable(comparison: Comparison, limit: float) -> float | None:
    """Bits: exactly, where as many images change sides beside the drop as here. Shares: by the normal limit."""
    n, spread = comparison.n, comparison.spread
    if spread is None:
        exchanged = 2 * min(len(comparison.lost), len(comparison.gained)) / n
        return noticeable(n, 2 * limit, wanted=POWER, exchanged=exchanged)  # which is two-sided, and p one-sided
    normal = NormalDist()
    return min(1.0, (normal.inv_cdf(1 - limit) + normal.inv_cdf(POWER)) * spread / math.sqrt(n))


def _what_changed(outcome: Outcome, measured: Measured, figures: Figures, last: Baseline) -> Outcome:
    """Classes, distances and margins of the images that did worse than in the last model."""
    first = next(iter(figures.shares))
    lost = figures.shares[first] < last.shares[first]
    labels = np.asarray(measured.images.labels.cpu())
    classes = Counter(measured.images.classes[k] for k in labels[lost].tolist())
    smallest: tuple[float, ...] = ()
    if figures.distances is not None:
        near = figures.distances[lost]
        smallest = tuple(float(each) for each in np.sort(near[~np.isnan(near)])[:SMALLEST])
    margins = None
    if figures.margins is not None and last.margins is not None:
        apart = figures.margins - last.margins
        margins = float(np.median(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else None
    return replace(outcome, lost_classes=dict(classes.most_common()), smallest=smallest, margins=margins)


def _worst_class(measured: Measured, figures: Figures) -> tuple[str, Rate] | None:
    groups = by_class(np.asarray(measured.images.labels.cpu()), measured.images.classes)
    shares = next(iter(figures.shares.values()))
    rates = {name: rate(shares[own]) for name, own in groups.items()}
    worst = min(rates, key=lambda name: rates[name].value, default=None)
    return None if worst is None else (worst, rates[worst])
