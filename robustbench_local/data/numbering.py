"""Numbers of classes: by their names, or those of somebody else, of a model above all, who calls them so too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from robustbench_local.core.errors import DataError, did_you_mean
from robustbench_local.data.catalogue import Labels

_NAMED = 5  # names in an error
_MOST_CLASSES = 100_000  # that have no names: a larger label is no class, but an id or a mistake
_NO_CLASS = re.compile(r"-\d+|[-+]?(\d+\.\d*|\.\d+)")


def numbered(name: str, labels: Sequence[str], others: Iterable[str]) -> tuple[Labels, tuple[str, ...]]:
    """Numbers of labels that are text, and the names of the classes; others: the labels of the other split.

    Whole numbers are the classes' numbers, from 0 to the highest of both splits; anything else is a name, and classes
    are in the order of their names. DataError on negative numbers, and on those that are not whole.
    """
    every = {*labels, *others}
    wrong = sorted(filter(_NO_CLASS.fullmatch, every))
    if wrong:
        raise DataError(f'{name} has the label "{wrong[0]}": give whole numbers from 0, or names')
    if all(_is_whole(label) for label in every):
        count = 1 + max(map(int, every))
        if count > _MOST_CLASSES:
            raise DataError(f"{name} has the label {count - 1}: give numbers of classes, from 0, and not ids")
        return np.array(list(map(int, labels)), np.int64), tuple(map(str, range(count)))
    classes = tuple(sorted(every))
    place = {each: k for k, each in enumerate(classes)}
    return np.array([place[label] for label in labels], np.int64), classes


def _is_whole(label: str) -> bool:
    return len(label) < 19 and label.isdecimal() and label.isascii() and str(int(label)) == label


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
    if all(_is_whole(each) and each not in place for each in classes):
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
