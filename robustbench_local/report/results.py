"""The rows of one or more results folders, and the per-sample arrays beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustbench_local.audit.beside import Audit
from robustbench_local.audit.beside import audits as kept_audits
from robustbench_local.errors import StoreError
from robustbench_local.report.table import Table, robust_tables, standing_in
from robustbench_local.store import Array, Row, Store


@dataclass(frozen=True)
class Results:
    """rows, and per key the store that holds its arrays."""

    rows: Sequence[Row]
    stores: dict[str, Store]
    _standing: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, rows: Iterable[Row], store: Store) -> Results:
        rows = list(rows)
        return cls(rows, {row["key"]: store for row in rows})

    @classmethod
    def read(cls, folders: Iterable[str | Path]) -> Results:
        """All rows of these folders; a cell that is in several of them counts once. StoreError where there is none.

        A folder that holds no rows stands for those of its subfolders that do.
        """
        rows: dict[str, Row] = {}
        stores: dict[str, Store] = {}
        for folder in (one for name in folders for one in with_rows(Path(name).expanduser())):
            store = Store(folder)
            for row in store.rows():
                if row["key"] not in rows or rows[row["key"]]["status"] != "ok":
                    rows[row["key"]], stores[row["key"]] = row, store
        return cls(list(rows.values()), stores)

    def arrays(self, row: Row, *names: str) -> dict[str, Array]:
        """Those of these arrays that a good row has. StoreError where they are damaged."""
        return self.stores[row["key"]].arrays(row["key"], *names)

    def standing(self, row: Row) -> npt.NDArray[np.float64]:
        """(N,) of a good row, whether each image stood: 0, 1, or a random model's share of draws. See standing_in."""
        key = row["key"]
        if key not in self._standing:
            self._standing[key] = standing_in(self.stores[key], self.audits)(row)
        return self._standing[key]

    def tables(self) -> list[Table]:
        """The tables of all rows, as audited."""
        return robust_tables(self.rows, self.standing, self.audits)

    @functools.cached_property
    def audits(self) -> list[Audit]:
        """Every audit kept beside the rows."""
        stores = {store.folder: store for store in self.stores.values()}
        return [audit for store in stores.values() for audit in kept_audits(store)]


def with_rows(folder: Path) -> list[Path]:
    """The folder itself where it holds rows, otherwise those of its subfolders that do; StoreError where none does."""
    found = [path for path in (folder, *sorted(folder.glob("*/"))) if any(path.glob("rows/*.json"))]
    if not found:
        missing = "holds no rows/*.json, nor does any folder in it" if folder.is_dir() else "is not there"
        raise StoreError(f"{folder.absolute()} {missing}: name a folder that a grid wrote, such as results/cifar10_pgd")
    return found[:1] if found[0] == folder else found
