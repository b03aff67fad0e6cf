"""What tables of pictures have in common, wherever they are stored: a column of image files, and one of labels."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import Labels
from robustbench_local.data.numbering import numbered

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels")
_SAFE_ARROW = 15  # before it, reading a table could run code that the table names


def imported(name: str, where: str) -> ModuleType:
    """The module, which is imported only where data need it. DataError where it is not installed, or too old."""
    try:
        arrow = importlib.import_module("pyarrow")
        found = importlib.import_module(name)
    except ImportError as error:
        missing = name.partition(".")[0]
        raise DataError(f"{where} needs {missing}: pip install 'robustbench_local[data]' ({error})") from error
    if int(arrow.__version__.partition(".")[0]) < _SAFE_ARROW:
        raise DataError(f"{where} needs pyarrow of version {_SAFE_ARROW} or later, {arrow.__version__} is installed")
    return found


def column(names: Collection[str], wanted: Sequence[str], where: str) -> str:
    """The one of the wanted columns that is there."""
    there = [name for name in wanted if name in names]
    if len(there) != 1:
        listed = ", ".join(sorted(names)[:20]) or "nothing"
        raise DataError(f'{where} has the columns {listed}: give one that is called "{wanted[0]}"')
    return there[0]


def content(value: Any, name: str) -> bytes:
    """The image file that a cell holds: bytes, or {bytes, path} as Hugging Face's tables have it."""
    found = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(found, bytes):
        return found
    if isinstance(value, Mapping) and value.get("path"):
        raise DataError(f"{name} is only a path, {value['path']!r:.99}: the table must hold the image itself, as bytes")
    raise DataError(f"{name} holds no image: {'nothing' if value is None else type(value).__name__}")


def labels_of(
    where: str, own: Sequence[Any], others: Sequence[Any], names: Sequence[str] | None
) -> tuple[Labels, tuple[str, ...]]:
    """Numbers (N,) and the classes' names, of a column: whole numbers, which `names` calls something, or text.

    others: the labels of the other split. DataError, with the row, where there is no label or none of the classes.
    """
    for row, label in enumerate(own):
        if label is None:
            raise DataError(f"{where}: row {row} has no label")
        if type(label) is not int and (names is not None or not isinstance(label, str)):
            raise DataError(f"{where}: row {row} has the label {label!r:.50}: give whole numbers, or text")
    if names is None:
        return numbered(where, [str(label) for label in own], {str(label) for label in others if label is not None})
    for row, label in enumerate(own):
        if not 0 <= label < len(names):
            hint = ": a test split without labels?" if label == -1 else ""
            raise DataError(f"{where}: row {row} has the label {label}, of {len(names)} classes{hint}")
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two of its {len(names)} classes have one name")
    return np.array(own, np.int64), tuple(names)
