"""The rows of a grid on disk: one JSON per cell, with its per-sample arrays beside it.

    FOLDER/rows/KEY.json    the row, sealed by a checksum (sealing.py); KEY is the hash of what defines the cell
    FOLDER/rows/KEY.npz     its arrays, (N, ...); the row lists their checksums, so that they stay a pair
    FOLDER/audits/*.json    what audits of its rows found (audit/records.py), sealed as well
    FOLDER/pictures/*.json  what a page shows of a model's images (report/panel.py), sealed as well
    FOLDER/rows.tar.xz      files of all kinds in one, where `robustbench-local pack` was called

A file is whole or absent, arrays come before their row, and nothing is locked: any number of processes may
write, and any of them may be killed at any instant. What is read is verified: a damaged file counts as missing, a
warning names it, and it is set aside as NAME.damaged.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Collection, Iterable, KeysView, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from robustbench_local.core.errors import StoreError
from robustbench_local.core.escaping import shown
from robustbench_local.storage import npz
from robustbench_local.storage.archive import AUDITS, NAME, PICTURES, ROWS, Packed
from robustbench_local.storage.files import Stamp, set_aside, stamp, sweep, whole_file
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row, done, names_before, renamed, row_of
from robustbench_local.storage.sealing import SCHEMA, OutdatedError, Record, plain, sealed, unsealed, written

MOST_BYTES = 64 * 2**20  # of one JSON file
_BUFFER = 2**16  # bytes read at once: most rows' arrays as a whole, in which an archive's reader jumps to and fro
_Read = TypeVar("_Read", bound=Record)
_Of = TypeVar("_Of")


class _Verified(NamedTuple):
    """The arrays of a row that were found right: their names, and those that stay in memory."""

    file: Stamp | None
    checksum: str
    names: KeysView[str]
    kept: dict[str, Array]


class Store:
    """Rows in a folder, which is made when first written to.

    own: whether what is damaged may be set aside; it is named in any case. keep: names of arrays that stay in memory
    where they are small, once they were verified, for who asks for those of every row.
    """

    def __init__(self, folder: str | Path, own: bool = True, keep: Iterable[str] = ()) -> None:
        self.folder, self.own = Path(folder), own
        self._keep = {*names_before(keep)}
        self._rows = self.folder / ROWS
        self._packed = Packed(self.folder / NAME)
        self._verified: dict[str, _Verified] = {}

    def check_writable(self) -> None:
        """StoreError now where rows could not be written later; clears what killed writers left behind."""
        probe = self._rows / ".probe"
        with whole_file(probe) as file:
            file.write(bytes(65536))
        probe.unlink(missing_ok=True)
        sweep(self._rows)

    def write(self, key: str, row: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> Row:
        """Store a row and its arrays (N, ...), losslessly compressed -> the row as it can be read back.

        Adds schema, key, created and checksums. row["status"] is "ok" or "error". A row of the same key is replaced,
        except that an error never replaces a good row. NaN and infinities become null. StoreError for a full disk or a
        read-only folder, and for what is no row.
        """
        if row["status"] == "error" and done(there := self.read(key)):
            return there
        record, checksums = plain(row), {}
        if arrays:
            with whole_file(self._rows / f"{key}.npz") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # taken for allow_pickle
                checksums = npz.checksums(file)  # now: once it is in place, another writer may replace it
        created = datetime.now(UTC).isoformat(timespec="seconds")
        record = sealed({"schema": SCHEMA, "key": key, "created": created, **record, "arrays": checksums})
        try:
            made = row_of(content := written(record), key)
        except StoreError as error:
            raise StoreError(f"row {key} could not be read again: {error}") from None
        with whole_file(self._rows / f"{key}.json") as file:
            file.write(content)
        return made

    def read(self, key: str) -> Row | None:
        """The row, or None where there is none that is whole, of this version and with its arrays."""
        found = self._record(f"{key}.json", _row_of)
        if done(found) and (fault := self._apart(found)) is not None:
            if not self._packed.damaged:  # which was named, and may have held thousands
                self._missing(self._place(f"{key}.json"), fault)
            return None
        return found

    def done(self, key: str) -> bool:
        """Whether a good row is there; no row, a damaged one and an error are all to be done (again)."""
        return done(self.read(key))

    def take(self, row: Row, other: Store, **changes: Any) -> Row:
        """Copy a row that another store has, with changes, and its arrays."""
        return self.write(row.key, {**row, **changes}, other.arrays(row.key))

    def neighbours(self) -> list[Store]:
        """The stores of the other grids in the same results folder."""
        try:
            folders = {path.parent for name in (ROWS, NAME) for path in self.folder.parent.glob(f"*/{name}")}
        except OSError:  # no such place can be: whoever writes there is told
            return []
        return [Store(folder, own=False) for folder in sorted(folders - {self.folder})]

    def rows(self) -> list[Row]:
        """Every readable row of an attack on a model, errors included, in the order of their keys."""
        return [row for row in self.every() if row.is_cell]

    def every(self) -> list[Row]:
        """Every readable row, certificates and whatever else there is included, in the order of their keys."""
        names = {path.name for path in self._rows.glob("[!.]*.json")}  # first: they may be packed meanwhile
        names |= {name for name in self._packed.files if "/" not in name}
        keys = sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
        return [row for row in map(self.read, keys) if row is not None]

    def arrays(self, key: str, *names: str) -> dict[str, Array]:
        """The per-sample arrays of a row, or those of the names that it has. StoreError where they are damaged.

        Those that stay in memory are read-only.
        """
        wanted = names_before(names)
        found = self._kept(f"{key}.npz", wanted)
        return renamed(self._of_arrays(key, lambda file: npz.load(file, wanted)) if found is None else found)

    def array_rows(self, key: str, name: str, rows: Sequence[int]) -> Array:
        """Of one array (N, ...) of a row, such as its images, those of these places (n, ...) alone."""
        return self._of_arrays(key, lambda file: npz.load_rows(file, name, rows))

    def _kept(self, name: str, wanted: Collection[str]) -> dict[str, Array] | None:
        """Of these arrays those that a file has, where all of them stay in memory, and it is the same file."""
        known = self._verified.get(name)
        if known is None or not wanted or not known.kept.keys() >= known.names & {*wanted}:
            return None
        try:
            seen = stamp(self._place(name)) or self._packed.seen
        except OSError:  # who reads it says what it is
            return None
        return {each: known.kept[each] for each in wanted if each in known.kept} if seen == known.file else None

    def _of_arrays(self, key: str, read: Callable[[BinaryIO], _Of]) -> _Of:
        path = self._place(f"{key}.npz")
        file, _ = self._open(path.name)
        if file is None:
            raise StoreError(f"{path.absolute()} is not there, the arrays of a row: run its grid again")
        try:
            with file:
                return read(file)
        except StoreError as error:
            raise StoreError(f"cannot read {path.absolute()}: {error}; run its grid again") from error

    def keep_audit(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep what an audit found beside the rows; one of the same name is replaced."""
        with whole_file(self.folder / AUDITS / name) as file:
            file.write(written(sealed({"schema": SCHEMA, "name": name, **record})))

    def audits(self) -> dict[str, Record]:
        """{name: record} of the audits kept, sorted; one that was packed before and kept again counts as kept last."""
        names = {f"{AUDITS}/{path.name}" for path in (self.folder / AUDITS).glob("[!.]*.json")}
        names |= {name for name in self._packed.files if name.startswith(f"{AUDITS}/")}
        found = {Path(name).name: self._record(name, _named) for name in sorted(names)}
        return {name: record for name, record in found.items() if record is not None}

    def audit(self, name: str) -> Record | None:
        """The record of one of them, None where there is none that is whole."""
        return self._record(f"{AUDITS}/{name}", _named)

    def keep_pictures(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a model's pictures beside its rows; those of the same name are replaced."""
        with whole_file(self.folder / PICTURES / name) as file:
            file.write(written(sealed({"schema": SCHEMA, "name": name, **record})))

    def pictures(self, name: str) -> Record | None:
        """The record of one model's pictures, None where there is none that is whole."""
        return self._record(f"{PICTURES}/{name}", _named)

    def _place(self, name: str) -> Path:
        """Where a file is that an archive calls so."""
        return self.folder / name if "/" in name else self._rows / name

    def _open(self, name: str) -> tuple[BinaryIO | None, Stamp | None]:
        """A file, and its stamp where it is a loose one; one that was packed before and written again counts as
        written last.
        """
        path = self._place(name)
        try:
            if (seen := stamp(path)) is not None:
                if seen[2] > _BUFFER:
                    return path.open("rb", _BUFFER), seen
                with path.open("rb", 0) as file:
                    return io.BytesIO(file.readall()), seen
        except FileNotFoundError:
            pass  # packed meanwhile
        except OSError as error:
            self._missing(path, str(error.strerror))
        content = self._packed.files.get(name)
        return None if content is None else io.BytesIO(content), None

    def _record(self, name: str, read: Callable[[bytes, str], _Read]) -> _Read | None:
        """What `read` makes of a file; a damaged one is set aside, and may have hidden one that was packed before."""
        while True:
            file, seen = self._open(name)
            if file is None:
                return None
            with file:
                content = file.read(MOST_BYTES + 1)
            try:
                if len(content) > MOST_BYTES:
                    raise StoreError(f"it has more than {MOST_BYTES / 2**20:.0f} MiB")
                return read(content, name)
            except StoreError as fault:
                path = self._place(name) if seen else self._packed.path / name
                if not self._set_aside(path, str(fault), None if isinstance(fault, OutdatedError) else seen):
                    return None

    def _apart(self, row: Row) -> str | None:
        """Why the arrays are not those that a good row lists; decompressed once, and again when the file changes."""
        name = f"{row.key}.npz"
        while row["arrays"]:
            file, seen = self._open(name)
            if file is None:
                return f"{name} beside it is absent"
            with file:
                known = self._verified.get(name)
                if known is not None and (known.file, known.checksum) == (seen or self._packed.seen, row["checksum"]):
                    return None
                kept: dict[str, Array] = {}
                try:
                    fault = npz.verify(file, row["arrays"], row.results["n"], kept)
                except StoreError as error:
                    if self._set_aside(self._place(name), str(error), seen):
                        continue
                    fault = str(error)
            if fault is None:
                own = {each: kept[each] for each in self._keep & kept.keys()}
                self._verified[name] = _Verified(seen or self._packed.seen, row["checksum"], row["arrays"].keys(), own)
            return fault and f"{name} beside it: {fault}"
        return None

    def _set_aside(self, path: Path, fault: str, seen: Stamp | None) -> bool:
        """Name a damaged file -> whether it is out of the way; seen: of what may be set aside."""
        aside = set_aside(path, seen) if self.own and seen else None
        self._missing(path, fault + (f"; it is {aside.name} now" if aside else ""))
        return aside is not None

    def _missing(self, path: Path, fault: str) -> None:
        warnings.warn(shown(f"{path.absolute()} counts as missing: {fault}", "terminal"), stacklevel=4)


def _row_of(content: bytes, name: str) -> Row:
    return row_of(content, name.removesuffix(".json"))


def _named(content: bytes, name: str) -> Record:
    record = unsealed(content)
    if record.get("name") != Path(name).name:
        raise StoreError(f"it is {record.get('name')!r:.60}, under another name")
    return record
