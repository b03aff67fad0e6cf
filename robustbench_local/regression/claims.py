"""What must be shown of a model: that it is not worse than another by more than a margin, that it reaches a floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from robustbench_local.metrics.groups import by_class
from robustbench_local.metrics.paired import compare
from robustbench_local.metrics.rates import rate
from robustbench_local.regression.figures import ATTACKS, Figures
from robustbench_local.regression.lock import Baseline
from robustbench_local.regression.measured import Measured
from robustbench_local.regression.outcome import ANCHOR, Claim
from robustbench_local.regression.settings import Check
from robustbench_local.regression.shares import Shares
from robustbench_local.report.text import percent

ENOUGH = 200  # images: benchmarks/regression.py shows intervals of shares to be too narrow on 58, and right on 500
_WORDS = {ATTACKS: "under the attacks", "corruptions": "under the corruptions"}


def not_worse(
    margin: float, figures: Figures, baselines: Mapping[str, Baseline], replayed: Shares | None, alpha: float
) -> Iterator[Claim]:
    """Non-inferiority: the one-sided interval of the paired difference stays within the margin.

    What old images break counts as broken here: who claims must show.
    """
    for against, baseline in baselines.items():
        for of, now in _with_replays(figures, replayed).items():
            difference = compare(baseline.shares[of], now, confidence=1 - 2 * alpha).difference
            text = (
                f"accuracy {_WORDS[of]} is at most {percent(max(0.0, difference.high))} points below the {against}"
                f"{' model' if against != ANCHOR else ''} ({1 - alpha:.0%} one-sided); the margin is {percent(margin)}"
                " points"
            )
            held = difference.high <= margin
            yield Claim(f"margin, {of}, {against}", margin, difference.high, difference.value, held, text)


def too_few(figures: Figures, baselines: Mapping[str, Baseline]) -> Iterator[str]:
    """Why a margin cannot be judged: shares of draws on few images, where a bootstrap's interval is too narrow."""
    for of, now in figures.shares.items():
        whole = all(np.isin(each, (0, 1)).all() for each in (now, *(base.shares[of] for base in baselines.values())))
        if not whole and len(now) < ENOUGH:
            yield (
                f"a margin of accuracy {_WORDS[of]} needs at least {ENOUGH} images where these count by shares, and"
                f" there are {len(now)}: on fewer its interval is too narrow"
            )


def floors(check: Check, measured: Measured, figures: Figures, replayed: Shares | None) -> Iterator[Claim]:
    for of, now in _with_replays(figures, replayed, audited=True).items():
        if check.at_least is not None:
            yield _floor(check, f"accuracy {_WORDS[of]}", now, check.at_least, 1)
        if check.worst_class_at_least is not None:
            groups = by_class(np.asarray(measured.images.labels.cpu()), measured.images.classes)
            each = [
                _floor(
                    check, f"accuracy {_WORDS[of]} of class {name}", now[own], check.worst_class_at_least, len(groups)
                )
                for name, own in groups.items()
            ]
            yield min(each, key=lambda claim: (claim.held, claim.bound))


def _floor(check: Check, what: str, shares: Shares, wanted: float, several: int) -> Claim:
    """Judged by one side of the interval. That all of several classes reach a floor needs no correction, as each must;
    that one of several is below it does (Bonferroni).
    """
    one_sided = 1 - (1 - check.confidence) / (several if check.side == "upper" else 1)
    found = rate(shares, 2 * one_sided - 1)
    bound = {"lower": found.low, "measured": found.value, "upper": found.high}[check.side]
    sides = {
        "lower": "its lower bound is {} ({} one-sided)",
        "measured": "",
        "upper": "its upper bound is {} ({} one-sided)",
    }[check.side].format(f"{percent(bound)} %", f"{check.confidence:g}")
    text = f"{what} is {percent(found.value)} % of {len(shares)} images{', ' * bool(sides)}{sides}; wanted are"
    return Claim(what, wanted, bound, found.value, bound >= wanted, f"{text} {percent(wanted)} %")


def _with_replays(figures: Figures, replayed: Shares | None, audited: bool = False) -> Mapping[str, Shares]:
    """The least that is known of each image: what old images, or an audit, broke is broken."""
    found = dict(figures.shares)
    for other in (replayed, figures.audited if audited else None):
        if other is not None and ATTACKS in found:
            found[ATTACKS] = np.minimum(found[ATTACKS], other)
    return found
