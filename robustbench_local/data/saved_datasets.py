"""hf:PATH: a data set that Hugging Face's `datasets` saved to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import DataError
from robustbench_local.data.encoded import Listed, file_stamp
from robustbench_local.data.pictures import Content
from robustbench_local.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, column, content, imported, labels_of


def read_saved_dataset(path: Path, split: str) -> Listed:
    """What `Dataset.save_to_disk(PATH)` wrote, which is the test split, or `DatasetDict` with test and train.

    Columns image and label; a ClassLabel names the classes. Nothing is downloaded and no code of a data set is run.
    DataError where `datasets` is missing, where the folder is damaged or holds other things.
    """
    where = f"hf:{path}"
    library = imported("datasets", where)
    if not path.is_dir():
        raise DataError(f"{where} is no folder: give one that save_to_disk wrote")
    try:
        loaded = library.load_from_disk(path)
        splits = dict(loaded) if isinstance(loaded, library.DatasetDict) else {"test": loaded}
        if split not in splits:
            raise DataError(
                f"{where} has no {split} split, but {', '.join(splits)}: name the folder of one, as {where}/validation"
            )
        tables = {name: _opened(library, splits[name], path, where) for name in splits if name in ("test", "train")}
        own = tables.pop(split)
        others = [label for table in tables.values() for label in table.labels]
        if not own.labels:
            raise DataError(f"{where} holds no image")
        labels, classes = labels_of(f"{where} {split}", own.labels, others, own.names)
    except DataError:
        raise
    except Exception as error:  # a damaged file may be the death of the library in many ways
        raise DataError(f"{where} cannot be read as a saved data set: {error or type(error).__name__}") from error
    if any(table.names != own.names for table in tables.values()):
        raise DataError(f"{where}: the two splits name their classes in two ways")
    return _Pictures(f"{where} {split}", own), labels, classes


@dataclass(frozen=True)
class _Table:
    """images: what gives the cell of a row; files: where they lie."""

    images: Any
    labels: list[Any]
    names: tuple[str, ...] | None
    files: list[Path]


def _opened(library: Any, table: Any, path: Path, where: str) -> _Table:
    files = [Path(os.path.abspath(file["filename"])) for file in table.cache_files]
    foreign = [file for file in files if Path(os.path.abspath(path)) not in file.parents]
    if foreign:
        raise DataError(f"{where} says that its images are in {foreign[0]}, outside its own folder")
    image = column(table.features, IMAGE_COLUMNS, where)
    label = column(table.features, LABEL_COLUMNS, where)
    table = table.with_format(None)
    if isinstance(table.features[image], library.Image):
        table = table.cast_column(image, library.Image(decode=False))
    table.data.validate(full=True)  # offsets of a damaged file would point anywhere
    names = getattr(table.features[label], "names", None)
    labels = list(table.select_columns([label])[:][label])
    return _Table(table.select_columns([image]), labels, None if names is None else tuple(names), files)


@dataclass(frozen=True)
class _Pictures:
    place: str
    table: _Table

    def __len__(self) -> int:
        return len(self.table.labels)

    def stamps(self) -> Iterator[bytes]:
        return map(file_stamp, self.table.files)

    def read(self, rows: Sequence[int]) -> Iterator[tuple[str, Content]]:
        for row in rows:
            name = f"{self.place}: row {row}"
            (value,) = self.table.images[row].values()
            yield name, content(value, name)
