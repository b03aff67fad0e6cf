"""Which images of a split: `ids` names a population, `n` and `sample` take from it."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Labels

Ids = str | slice | Sequence[int]


def select(
    labels: Labels, classes: tuple[str, ...], n: int | None, ids: Ids | None, sample: str | None, seed: int
) -> slice | list[int]:
    """The ids (indices in the official order) that n, ids and sample choose, from the labels of the split.

    sample: None for the first n; "stratified" for n // K images of each of K classes, one more of n % K of them;
    "spread" for the same, where classes that have not so many images leave their share to the others.
    A contiguous choice comes back as a slice. Raises DataError on anything out of range.
    """
    population = slice(0, len(labels)) if ids is None else _population(ids, len(labels))
    size = population.stop - population.start if isinstance(population, slice) else len(population)
    if n is not None and not 1 <= n <= size:
        raise DataError(f"n={n} lies outside [1, {size}]: there are {size} images to choose from")
    if sample is None or (sample == "spread" and n in (None, size)):
        if isinstance(population, slice):
            return slice(population.start, population.start + (size if n is None else n))
        return population[:n]
    if sample not in ("stratified", "spread"):
        raise DataError(f'unknown sample "{sample}": give "stratified", or leave it out')
    if n is None:
        raise DataError("sample=stratified draws n images: give n as well")
    chosen = _stratified(np.arange(len(labels))[population], labels, len(classes), n, seed)
    if sample == "stratified":
        _check_shares(labels[chosen], labels[population], classes, n)
    return chosen


def reach(total: int, n: int | None, ids: Ids | None, sample: str | None) -> int:
    """How many images from the first on hold all that `select` may choose of a split of `total`. DataError as there."""
    population = slice(0, total) if ids is None else _population(ids, total)
    first = None if sample is not None else n
    if isinstance(population, slice):
        start, stop = int(population.start), int(population.stop)
        return stop if first is None else min(stop, start + first)
    return max(population[:first], default=total - 1) + 1


def _population(ids: Ids, total: int) -> slice | list[int]:
    if isinstance(ids, str):
        ids = _parse(ids)
    if isinstance(ids, slice):
        if ids.step not in (None, 1):
            raise DataError(f"ids={ids} has a step: give a contiguous slice or the ids themselves")
        try:
            start = operator.index(ids.start or 0)
            stop = total if ids.stop is None else operator.index(ids.stop)
        except TypeError:
            raise DataError(f"ids={ids} are not bounded by whole numbers") from None
        if not 0 <= start < stop <= total:
            raise DataError(f"ids {start}:{stop} lie outside 0:{total}, or hold no image")
        return slice(start, stop)
    numbers = [int(i) for i in ids]
    outside = [i for i in numbers if not 0 <= i < total]
    if outside:
        raise DataError(f"ids {outside[:5]} lie outside [0, {total - 1}], the ids of the split")
    if not numbers or len(set(numbers)) != len(numbers):
        raise DataError(f"ids must be distinct, {len(numbers)} given, {len(set(numbers))} different")
    return numbers


def _parse(text: str) -> slice:
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return slice(int(first) if first.strip() else None, int(last) if last.strip() else None)
    except ValueError:
        raise DataError(f'ids="{text}" is no slice: write START:STOP, as in 1000:10000') from None


def _stratified(population: npt.NDArray[np.intp], labels: Labels, classes: int, n: int, seed: int) -> list[int]:
    """n images, as many of each class as it has and the others leave it, drawn by the seed; in the official order.

    Every class is shuffled, and so are the classes; then each gives one image after the other. A smaller n is the
    beginning of the same sequence, and so a part of a larger one.
    """
    generator = np.random.default_rng(seed)
    by_class = population[np.argsort(labels[population], kind="stable")]
    ends = np.searchsorted(labels[by_class], np.arange(classes + 1))
    members = [generator.permutation(by_class[start:end]) for start, end in itertools.pairwise(ends)]
    place = np.empty(classes, np.intp)
    place[generator.permutation(classes)] = np.arange(classes)
    turn = np.concatenate([np.arange(len(each)) for each in members])
    of = np.repeat(place, [len(each) for each in members])
    first = np.lexsort((of, turn))[:n]
    return sorted(np.concatenate(members)[first].tolist())


def _check_shares(drawn: Labels, there: Labels, classes: tuple[str, ...], n: int) -> None:
    """DataError where a class has fewer images than an equal share."""
    least = n // len(classes)
    short = np.flatnonzero(np.bincount(drawn, minlength=len(classes)) < least)
    if len(short):
        k = int(short[0])
        raise DataError(
            f"n={n} stratified needs {least} images of class {classes[k]}, which has {(there == k).sum()}:"
            " give a smaller n"
        )
