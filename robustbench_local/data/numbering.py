"""Classes by the numbers of somebody else, of a model above all: what it calls 7 is then 7 in the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from robustbench_local.core.errors import DataError, did_you_mean
from robustbench_local.data.catalogue import Labels

_NAMED = 5  # names in an error


def renumbered(
    name: str, labels: Labels, classes: tuple[str, ...], wanted: Sequence[str]
) -> tuple[Labels, tuple[str, ...]]:
    """The labels (N,) as numbers in `wanted`, by the names of the classes, and the names wanted.

    Classes that are all called by whole numbers, none of them wanted as a name, are those numbers. DataError where a
    class is not among those wanted, or one is wanted twice.
    """
    twice, count = Counter(wanted).most_common(1)[0] if wanted else ("", 0)
    if count > 1:
        raise DataError(f'classes names "{twice}" twice: every class needs a name of its own')
    place = {each: k for k, each in enumerate(wanted)}
    if all(each.isdecimal() and str(int(each)) == each and each not in place for each in classes):
        place = {str(k): k for k in range(len(wanted))}
    foreign = [each for each in classes if each not in place]
    if foreign:
        named = ", ".join(f'"{each}"{did_you_mean(each, place)}' for each in foreign[:_NAMED])
        rest = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise DataError(
            f"{name} has classes that are not among the {len(wanted)} given: {named}{rest}. Rename them as they are"
            " called there, or give the numbers from 0 as names"
        )
    return np.array([place[each] for each in classes], np.int64)[labels], tuple(wanted)
