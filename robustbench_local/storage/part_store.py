"""Parts of rows that are still being made, so that what is done of a large cell survives whoever did it.

    FOLDER/running/shards/NAME.json    what is said of a part, sealed by a checksum (sealing.py)
    FOLDER/running/shards/NAME.npz     its arrays, (n, ...); the record lists their checksums, so that they stay a pair

Files are whole or absent, and arrays come before their record, as in store.py. What is damaged counts as missing, a
warning names it, and its record is set aside as NAME.json.damaged.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from robustbench_local.core.errors import StoreError
from robustbench_local.core.escaping import shown
from robustbench_local.storage import npz
from robustbench_local.storage.files import set_aside, stamp, whole_file
from robustbench_local.storage.npz import Array
from robustbench_local.storage.sealing import SCHEMA, Record, sealed, unsealed, written


class PartStore:
    """Of one grid, whose folder is given; it is made when first written to."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / "running" / "shards"

    def write(self, name: str, record: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Keep a part, as it is: it is not there for long. StoreError as in `whole_file`."""
        with whole_file(self.folder / f"{name}.npz") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # taken for allow_pickle
            checksums = npz.checksums(file)  # now: once it is in place, another writer may replace it
        content = written(sealed({"schema": SCHEMA, "name": name, **record, "arrays": checksums}))
        with whole_file(self.folder / f"{name}.json") as file:
            file.write(content)

    def record(self, name: str) -> Record | None:
        """What is said of a part; None where there is none that is whole. Its arrays are not looked at."""
        path = self.folder / f"{name}.json"
        try:
            if stamp(path) is None:
                return None
            record = unsealed(path.read_bytes())
            if record.get("name") != name:
                raise StoreError(f"it is the part {record.get('name')!r:.80}")
        except FileNotFoundError:  # removed this instant
            return None
        except (OSError, StoreError) as fault:
            self.reject(name, str(fault))
            return None
        return record

    def arrays(self, name: str, record: Record, n: int) -> BinaryIO:
        """The archive with the arrays (n, ...) that a part's record lists, all verified, for `npz` to read.

        StoreError where they are not there, or are others.
        """
        try:
            archive = (self.folder / f"{name}.npz").open("rb")
        except OSError as error:
            raise StoreError(f"{name}.npz beside it: {error.strerror}") from error
        try:
            if fault := npz.verify(archive, record["arrays"], n):
                raise StoreError(f"{name}.npz beside it: {fault}")
            archive.seek(0)
        except BaseException:
            archive.close()
            raise
        return archive

    def reject(self, name: str, fault: str) -> None:
        """Let a part count as missing from now on, and say so."""
        path = self.folder / f"{name}.json"
        aside = None
        with suppress(OSError):  # it is no plain file: whoever writes it is told
            aside = set_aside(path, seen) if (seen := stamp(path)) else None
        moved = f"; it is {aside.name} now" if aside else ""
        warnings.warn(shown(f"{path.absolute()} counts as missing: {fault}{moved}", "terminal"), stacklevel=3)

    def remove(self, name: str) -> None:
        """A part that is no longer needed; the record first, so that no part is ever there without its arrays."""
        for ending in ("json", "npz"):
            with suppress(OSError):  # it is not needed, and in nobody's way
                (self.folder / f"{name}.{ending}").unlink()
