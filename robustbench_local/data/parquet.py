"""parquet:PATH: pictures in a Parquet file, or in a folder of them as the Hugging Face hub has it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.data.catalogue import SPLITS
from robustbench_local.data.encoded import Listed, file_stamp
from robustbench_local.data.pictures import Content
from robustbench_local.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, column, content, imported, labels_of

_BATCH = 32  # pictures that are in memory at a time


def read_parquet(path: Path, split: str) -> Listed:
    """Columns image (bytes, or {bytes, path}) and label (whole numbers or text) of a file, or of all files of a folder
    by their names: PATH/test/*.parquet, PATH/test-*.parquet, or without splits PATH/*.parquet, which is the test split;
    PATH/data is looked into as well. Names of classes are those that Hugging Face's metadata gives.

    DataError where pyarrow is missing, and with the file where one is damaged or has other columns.
    """
    where = f"parquet:{path}"
    imported("pyarrow.parquet", where)
    files = _split_files(path, where)
    if split not in files:
        raise DataError(f"{where} has no {split} split: name its files {split}-*.parquet, or put them into {split}/")
    tables = {name: [_opened(file) for file in found] for name, found in files.items()}
    own = tables.pop(split)
    names = own[0].class_names
    for table in (*own, *(each for rest in tables.values() for each in rest)):
        if table.class_names != names:
            raise DataError(f"{table.file} names its classes otherwise than {own[0].file}")
    labels = [label for table in own for label in table.labels]
    others = [label for rest in tables.values() for table in rest for label in table.labels]
    if not labels:
        raise DataError(f"{where} holds no image")
    return _Pictures(f"{where} {split}", own), *labels_of(f"{where} {split}", labels, others, names)


@dataclass(frozen=True)
class _Table:
    """One file. image: the name of its column; groups: how many rows each group has, which are read together."""

    file: Path
    image: str
    labels: list[Any]
    class_names: tuple[str, ...] | None
    groups: list[int]

    def batches(self, group: int) -> Iterator[list[Any]]:
        """The pictures of a group of rows, some at a time."""
        with _reader(self.file) as reader:
            for batch in reader.iter_batches(_BATCH, row_groups=[group], columns=[self.image]):
                yield batch.column(0).to_pylist()


def _opened(file: Path) -> _Table:
    with _reader(file) as reader:
        names = reader.schema_arrow.names
        label, image = column(names, LABEL_COLUMNS, str(file)), column(names, IMAGE_COLUMNS, str(file))
        labels = reader.read(columns=[label]).column(0).to_pylist()
        groups = [reader.metadata.row_group(g).num_rows for g in range(reader.metadata.num_row_groups)]
        return _Table(file, image, labels, _class_names(reader.schema_arrow.metadata, label), groups)


def _class_names(metadata: Any, label: str) -> tuple[str, ...] | None:
    """Those of Hugging Face's metadata; None where there are none."""
    with suppress(ValueError, KeyError, TypeError):
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        if all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


@contextmanager
def _reader(file: Path) -> Iterator[Any]:
    """A ParquetFile, closed again: a data set may have more files than a process may open."""
    try:
        with imported("pyarrow.parquet", str(file)).ParquetFile(file) as reader:
            yield reader
    except DataError:
        raise
    except Exception as error:  # a damaged file may be the death of a decoder in many ways
        raise DataError(f"{file} cannot be read as Parquet: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class _Pictures:
    place: str
    tables: Sequence[_Table]

    @cached_property
    def _groups(self) -> list[tuple[_Table, int, int]]:
        """(file, group, rows) of every group of rows."""
        return [(table, group, rows) for table in self.tables for group, rows in enumerate(table.groups)]

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum([rows for _, _, rows in self._groups])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def stamps(self) -> Iterator[bytes]:
        return (file_stamp(table.file) for table in self.tables)

    def read(self, rows: Sequence[int]) -> Iterator[tuple[str, Content]]:
        group, start, held = -1, 0, list[Any]()
        batches: Iterator[list[Any]] = iter(())
        for row in rows:
            wanted = int(np.searchsorted(self._ends, row, "right"))
            table, within, count = self._groups[wanted]
            if wanted != group or row < start:
                group, start, held = wanted, int(self._ends[wanted]) - count, []
                batches = table.batches(within)
            while row >= start + len(held):
                start += len(held)
                if not (held := next(batches, [])):
                    raise DataError(f"{table.file} has fewer rows than it announces: damaged")
            name = f"{self.place}: row {row}"
            yield name, content(held[row - start], name)


def _split_files(path: Path, where: str) -> Mapping[str, list[Path]]:
    try:
        if path.is_file():
            return {"test": [path]}
        if not path.is_dir():
            raise DataError(f"{where} is no file and no folder")
        roots = [path, path / "data"] if (path / "data").is_dir() else [path]
        folders = {split: path / split for split in SPLITS if (path / split).is_dir()}
        if folders:
            return {split: found for split, folder in folders.items() if (found := sorted(folder.glob("*.parquet")))}
        files = sorted(file for root in roots for file in root.glob("*.parquet"))
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    if not files:
        raise DataError(f"{where} holds no file NAME.parquet")
    named = {split: [file for file in files if re.match(rf"{split}\b", file.name)] for split in SPLITS}
    left = [file.name for file in files if not any(file in found for found in named.values())]
    if len(left) == len(files):
        return {"test": files}
    if left:
        warnings.warn(f"{where}: {', '.join(left[:3])} are of no split (test or train) and left out", stacklevel=7)
    return {split: found for split, found in named.items() if found}
