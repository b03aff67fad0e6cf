"""A list of pictures and their labels beside them: labels.csv, with the columns file and label."""

from __future__ import annotations

import csv
import os
from pathlib import Path, PurePosixPath
from typing import Any

from robustbench_local.core.errors import DataError
from robustbench_local.data.pictures import SUFFIXES

LABELS_FILE = "labels.csv"
_COLUMNS = ("file", "label")


def read_labels(file: Path) -> list[tuple[Path, str]]:
    """(picture, label) of each line, in its order: UTF-8, a first line that names the columns, others than these two
    left alone. A file is a path from the list's own folder, with / between folders; what holds a comma is quoted.

    DataError, with the line, where a file is absolute or has .. in it, is listed twice, is missing or no picture, and
    where a label is empty.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _read(file, csv.reader(lines, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of comma-separated values in UTF-8: {error}") from error


def _read(file: Path, rows: Any) -> list[tuple[Path, str]]:
    header = [name.strip() for name in next(rows, [])]
    if any(header.count(column) != 1 for column in _COLUMNS):
        raise DataError(
            f'{file}: the first line is "{",".join(header)[:100]}": it must name the columns, file,label among them'
            f" (rename the file if it is no list of these pictures)"
        )
    file_column, label_column = (header.index(column) for column in _COLUMNS)
    found: dict[str, tuple[Path, str]] = {}
    for row in rows:
        if not row:
            continue
        where = f"{file}, line {rows.line_num}"
        if len(row) != len(header):
            raise DataError(f"{where} has {len(row)} values, and the first {len(header)}: quote what holds a comma")
        name, label = row[file_column].strip(), row[label_column].strip()
        path = _inside(file.parent, name, where)
        key = os.path.normpath(name)
        if key in found:
            raise DataError(f'{where} lists "{name}" a second time: each picture has one label')
        if not label:
            raise DataError(f'{where}: "{name}" has no label')
        found[key] = path, label
    if not found:
        raise DataError(f"{file} lists no picture")
    return list(found.values())


def _inside(folder: Path, name: str, where: str) -> Path:
    """The picture of that name within the folder."""
    pure = PurePosixPath(name)
    if not name or "\0" in name or pure.is_absolute() or Path(name).is_absolute() or ".." in pure.parts:
        raise DataError(f'{where}: "{name}" is no path within {folder}: write it from there, without ..')
    if pure.suffix.lower() not in SUFFIXES:
        raise DataError(f'{where}: "{name}" is of a kind that is not read: {", ".join(sorted(SUFFIXES))}')
    path = folder / name
    if not path.is_file():
        raise DataError(f'{where}: there is no file "{name}" in {folder}')
    return path
