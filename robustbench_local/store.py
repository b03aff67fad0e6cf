"""The rows of a grid on disk: one JSON per cell, with its per-sample arrays beside it.

    FOLDER/rows/KEY.json    the row; KEY is the hash of what defines the cell
    FOLDER/rows/KEY.npz     its arrays, (N, ...); the row lists their checksums, so that they stay a pair
    FOLDER/audits/*.json    what audits of its rows found (audit/beside.py)
    FOLDER/rows.tar.xz      files of all kinds in one, where `robustbench-local pack` was called

A file is whole or absent, arrays come before their row, and nothing is locked: any number of processes may
write, and any of them may be killed at any instant.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_local.blocks import blocks
from robustbench_local.draws import Draws
from robustbench_local.errors import StoreError
from robustbench_local.files import sweep, whole_file
from robustbench_local.packed import AUDITS, NAME, ROWS, Packed

_BLOCK = 2**24  # pixels fingerprinted at a time
SCHEMA = 1  # raised when old rows can no longer be read as new ones

Row = dict[str, Any]
Array = npt.NDArray[Any]


def row_key(definition: Mapping[str, Any]) -> str:
    """The name of a cell: 24 hex digits of a sha256 over the schema and all that defines it.

    Neither the order of keys matters nor whether a whole number is written as 1 or 1.0. StoreError for what JSON
    cannot hold.
    """
    whole = _plain({"schema": SCHEMA, "definition": definition}, exact=True)
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint(x: Tensor) -> Tensor:
    """(N,) int64: what images (N, C, H, W) are known by, in any data set and selection, from their bits in float32."""
    weights = Draws(0, torch.zeros(1, dtype=torch.int64, device=x.device)).integers(2**31, x.shape[1:].numel())
    found = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for rows in blocks(len(x), weights.numel(), _BLOCK, torch.device("cpu")):  # int64 copies: on a GPU in parts as well
        plain = x[rows].detach().float().contiguous() + 0.0  # -0 and 0 are one pixel
        found[rows] = (plain.view(torch.int32).flatten(1).long() * weights).sum(1)
    return found


class Store:
    """Rows in a folder, which is made when first written to."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._rows = self.folder / ROWS
        self._packed = Packed(self.folder / NAME)

    def check_writable(self) -> None:
        """StoreError now where rows could not be written later; clears what killed writers left behind."""
        probe = self._rows / ".probe"
        with whole_file(probe) as file:
            file.write(bytes(65536))
        probe.unlink(missing_ok=True)
        sweep(self._rows)

    def write(self, key: str, row: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Store a row and its arrays (N, ...), losslessly compressed; adds schema, key, created, checksums.

        row["status"] is "ok" or "error". A row of the same key is replaced, except that an error never
        replaces a good row. NaN and infinities become null. StoreError for a full disk or a read-only folder.
        """
        if row["status"] == "error" and self.done(key):
            return
        plain, checksums = _plain(row), {}
        if arrays:
            with whole_file(self._rows / f"{key}.npz") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # taken for allow_pickle
                checksums = _checksums(file)  # now: once it is in place, another writer may replace it
        record = {
            "schema": SCHEMA,
            "key": key,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **plain,
            "arrays": checksums,
        }
        with whole_file(self._rows / f"{key}.json") as file:
            file.write(json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")

    def read(self, key: str) -> Row | None:
        """The row, or None where there is none. A damaged one counts as missing, and a warning says so."""
        path = self._rows / f"{key}.json"
        try:
            with self._file(path.name) as file:
                row = json.load(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path.absolute()}: {error}") from error
        except ValueError:
            row = None
        fault = self._fault(key, row)
        if fault:
            warnings.warn(f"{path.absolute()} counts as missing: {fault}", stacklevel=2)
            return None
        return cast(Row, row)

    def done(self, key: str) -> bool:
        """Whether a good row is there; no row, a damaged one and an error are all to be done (again)."""
        row = self.read(key)
        return row is not None and row["status"] == "ok"

    def take(self, key: str, other: Store, **changes: Any) -> None:
        """Copy a row that another store has, with changes, and its arrays."""
        self.write(key, {**(other.read(key) or {}), **changes}, other.arrays(key))

    def neighbours(self) -> list[Store]:
        """The stores of the other grids in the same results folder."""
        folders = {path.parent for name in (ROWS, NAME) for path in self.folder.parent.glob(f"*/{name}")}
        return [Store(folder) for folder in sorted(folders - {self.folder})]

    def rows(self) -> list[Row]:
        """Every readable row, errors included, in the order of their keys."""
        names = {path.name for path in self._rows.glob("[!.]*.json")} | {*self._packed.files}
        keys = sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and "/" not in name)
        return [row for row in map(self.read, keys) if row is not None]

    def arrays(self, key: str, *names: str) -> dict[str, Array]:
        """The per-sample arrays of a row, or those of the names that it has. StoreError where they are damaged."""
        path = self._rows / f"{key}.npz"
        try:
            with self._file(path.name) as archive, np.load(archive, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if not names or name in names}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            advice = f"delete {key}.json to have it done again"
            raise StoreError(f"cannot read {path.absolute()}: {error}; {advice}") from error

    def keep_audit(self, name: str, content: bytes) -> None:
        """Keep what an audit found beside the rows; one of the same name is replaced."""
        with whole_file(self.folder / AUDITS / name) as file:
            file.write(content)

    def audits(self) -> dict[str, bytes]:
        """{name: content} of the audits kept, sorted; one that was packed before and kept again counts as kept last."""
        packed = {name: data for name, data in self._packed.files.items() if name.startswith(f"{AUDITS}/")}
        loose = {f"{AUDITS}/{path.name}": path.read_bytes() for path in (self.folder / AUDITS).glob("[!.]*.json")}
        return {Path(name).name: data for name, data in sorted((packed | loose).items())}

    def _fault(self, key: str, row: Any) -> str | None:
        """Why what was read is no row to build on, or None where it is one."""
        if not isinstance(row, dict):
            return "it is no JSON object: cut short or overwritten"
        if row.get("key") != key or row.get("status") not in ("ok", "error"):
            return "it is not a row of that name"
        if row.get("schema") != SCHEMA:
            return f"it has schema {row.get('schema')}, not {SCHEMA}"
        if row.get("arrays") and row["arrays"] != self._sums(key):
            return f"{key}.npz beside it is absent, damaged or of another run"
        return None

    def _file(self, name: str) -> BinaryIO:
        """A file of a row; one that was packed before and written again counts as written last."""
        try:
            return (self._rows / name).open("rb")
        except FileNotFoundError:
            if name not in self._packed.files:
                raise
            return io.BytesIO(self._packed.files[name])

    def _sums(self, key: str) -> dict[str, str]:
        try:
            with self._file(f"{key}.npz") as archive:
                return _checksums(archive)
        except OSError:
            return {}


def _checksums(archive: BinaryIO) -> dict[str, str]:
    """The CRC-32 of each array, as the archive's own directory lists them: nothing is decompressed."""
    try:
        with zipfile.ZipFile(archive) as file:
            return {entry.filename.removesuffix(".npy"): f"{entry.CRC:08x}" for entry in file.infolist()}
    except (OSError, zipfile.BadZipFile):
        return {}


def _plain(value: Any, exact: bool = False) -> Any:
    """value as JSON knows it. exact: whole floats become ints, NaN and infinities are refused, not null."""
    match value:
        case Mapping():
            return {str(name): _plain(item, exact) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, exact) for item in value]
        case np.generic():
            return _plain(value.item(), exact)
        case float() if not math.isfinite(value) and not exact:
            return None
        case float() if math.isfinite(value) and exact and value.is_integer():
            return int(value)
        case float() if math.isfinite(value):
            return value
        case None | bool() | int() | str():
            return value
    kind = type(value).__name__
    raise StoreError(f"{value!r} ({kind}) has no place in a row: finite numbers, strings, lists, dicts only")
