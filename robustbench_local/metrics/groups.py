"""Fairness: accuracy per class or per group of images, and the largest gap between two of them, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.metrics.rates import CONFIDENCE, Floats, Ints, Rate, simultaneous

_NAMED = 5  # of what is unknown, in one message

Members = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Gap:
    """The group that fares best, the one that fares worst, and how far they lie apart."""

    best: str
    worst: str
    gap: Rate


def by_class(labels: Ints, classes: Sequence[str]) -> dict[str, Members]:
    """The images (N,) of each class that has any."""
    found = {name: labels == k for k, name in enumerate(classes)}
    return {name: members for name, members in found.items() if members.any()}


def check_groups(
    groups: Mapping[str, Sequence[str | int]], classes: Collection[str], ids: Collection[int] | None = None
) -> None:
    """DataError where a group names classes or images that are nowhere; classes and ids are all there are."""
    for name, listed in groups.items():
        for what, known, kind in (("classes", classes, str), ("images", ids, int)):
            if known is None:
                continue
            unknown = [str(each) for each in dict.fromkeys(listed) if isinstance(each, kind) and each not in known]
            if unknown:
                more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
                there = ", ".join(map(str, known)) if kind is str else f"{len(known)} in {min(known)} .. {max(known)}"
                raise DataError(
                    f'group "{name}" names the {what} {", ".join(unknown[:_NAMED])}{more}, which are not there: known'
                    f" are {there}"
                )


def by_group(
    labels: Ints, ids: Ints, classes: Sequence[str], groups: Mapping[str, Sequence[str | int]]
) -> dict[str, Members]:
    """The images (N,) of each named group that has any: classes by name, or single images by id.

    DataError where a class is unknown, or where an image is in two groups: their intervals would not be
    independent.
    """
    check_groups(groups, classes)
    found: dict[str, Members] = {}
    for name, listed in groups.items():
        own = [classes.index(each) for each in listed if isinstance(each, str)]
        found[name] = np.isin(labels, own) | np.isin(ids, [each for each in listed if not isinstance(each, str)])
    twice = [int(i) for i in ids[np.sum(list(found.values()), axis=0) > 1]] if found else []
    if twice:
        raise DataError(f"the images {twice[:5]} are in two groups: groups are to share none")
    return {name: members for name, members in found.items() if members.any()}


def rates_of(shares: Floats, groups: Mapping[str, Members], confidence: float = CONFIDENCE) -> dict[str, Rate]:
    """The rate of each group by shares (N,); their intervals hold all together."""
    return dict(zip(groups, simultaneous([shares[members] for members in groups.values()], confidence), strict=True))


def largest_gap(rates: Mapping[str, Rate]) -> Gap | None:
    """Between the best and the worst rate; None of fewer than two.

    That the two were picked for lying apart is allowed for: wherever all the rates lie within their simultaneous
    intervals, the gap lies within its own.
    """
    if len(rates) < 2:
        return None
    best, worst = max(rates, key=lambda name: rates[name].value), min(rates, key=lambda name: rates[name].value)
    lows, highs = [rate.low for rate in rates.values()], [rate.high for rate in rates.values()]
    interval = max(0.0, max(lows) - min(highs)), max(highs) - min(lows)
    return Gap(best, worst, Rate(rates[best].value - rates[worst].value, *interval))
