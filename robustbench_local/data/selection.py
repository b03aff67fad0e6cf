"""Which images of a split: `ids` names a population, `n` and `sample` take from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robustbench_local.data.catalogue import Labels
from robustbench_local.errors import DataError

Ids = str | slice | Sequence[int]


def select(
    labels: Labels, classes: tuple[str, ...], n: int | None, ids: Ids | None, sample: str | None, seed: int
) -> slice | list[int]:
    """The ids (indices in the official order) that n, ids and sample choose, from the labels of the split.

    A contiguous choice comes back as a slice. Raises DataError on anything out of range.
    """
    population = slice(0, len(labels)) if ids is None else _population(ids, len(labels))
    size = population.stop - population.start if isinstance(population, slice) else len(population)
    if n is not None and not 1 <= n <= size:
        raise DataError(f"n={n} lies outside [1, {size}]: there are {size} images to choose from")
    if sample is None:
        if isinstance(population, slice):
            return slice(population.start, population.start + (size if n is None else n))
        return population[:n]
    if sample != "stratified":
        raise DataError(f'unknown sample "{sample}": give "stratified", or leave it out for the first n')
    if n is None:
        raise DataError("sample=stratified draws n images: give n as well")
    return _stratified(np.arange(len(labels))[population], labels, classes, n, seed)


def _population(ids: Ids, total: int) -> slice | list[int]:
    if isinstance(ids, str):
        ids = _parse(ids)
    if isinstance(ids, slice):
        if ids.step not in (None, 1):
            raise DataError(f"ids={ids} has a step: give a contiguous slice or the ids themselves")
        start, stop = ids.start or 0, total if ids.stop is None else ids.stop
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


def _stratified(
    population: npt.NDArray[np.intp], labels: Labels, classes: tuple[str, ...], n: int, seed: int
) -> list[int]:
    """n // K images of each class, one more of n % K classes, drawn by the seed; in the official order.

    The order of each class is drawn before n is looked at, so that a smaller n is a part of a larger one.
    """
    generator = np.random.default_rng(seed)
    order = [generator.permutation(population[labels[population] == k]) for k in range(len(classes))]
    share = np.full(len(classes), n // len(classes))
    share[generator.permutation(len(classes))[: n % len(classes)]] += 1
    chosen: list[int] = []
    for name, members, wanted in zip(classes, order, share, strict=True):
        if len(members) < wanted:
            raise DataError(
                f"n={n} stratified needs {wanted} images of class {name}, "
                f"which has {len(members)}: give a smaller n"
            )
        chosen += members[:wanted].tolist()
    return sorted(chosen)
