"""Which images are of which class, and of which named group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from robustbench_local.core.errors import DataError
from robustbench_local.metrics.groups import Members, by_class, by_group, check_groups
from robustbench_local.metrics.rates import Ints
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row

Groups = Mapping[str, Sequence[str | int]]  # names of groups, and the classes (by name) or images (by id) in each


def read_groups(path: Path) -> Groups:
    """The groups in a JSON file: {"animals": ["cat", "dog"], "hard": [17, 23]}. DataError where there are none."""
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the groups in {path}: {error}") from error
    lists = isinstance(groups, dict) and all(isinstance(listed, list) for listed in groups.values())
    if not lists or not all(type(each) in (str, int) for listed in groups.values() for each in listed):
        raise DataError(f'{path} holds no groups: write {{"animals": ["cat", "dog"], "hard": [17, 23]}}')
    return dict(groups)


def check_known(groups: Groups, rows: Iterable[Row], arrays: Callable[[Row], Mapping[str, Array]]) -> None:
    """DataError where groups name classes or images that no good row has."""
    every = [(row, arrays(row)) for row in rows]
    classes = {name for row, own in every for name in class_names(row, own["labels"].astype(np.int64))}
    ids = {i for _, own in every for i in own["ids"].tolist()}
    check_groups(groups, sorted(classes), ids)


def members_of(
    row: Row, arrays: Mapping[str, Array], groups: Groups | None
) -> Iterator[tuple[str, dict[str, Members]]]:
    """("classes", the images (N,) of each) of a good row's arrays, and ("groups", ...) where groups are known."""
    labels, ids = arrays["labels"].astype(np.int64), arrays["ids"].astype(np.int64)
    names = class_names(row, labels)
    yield "classes", by_class(labels, names)
    if groups:
        there = {*names, *ids.tolist()}  # other tables are of other images
        own = {name: [each for each in listed if each in there] for name, listed in groups.items()}
        yield "groups", by_group(labels, ids, names, own)


def class_names(row: Row, labels: Ints) -> list[str]:
    """Names of all classes; those of which the row has no image bear their number."""
    results, there = row.results, np.unique(labels).tolist()
    names = dict(zip(there, (each["class"] for each in results["per_class"]), strict=True))
    return [names.get(k, str(k)) for k in range(results.get("classes", max(there) + 1))]
