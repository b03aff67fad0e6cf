"""The rows of one or more results folders, and the per-sample arrays beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.errors import StoreError
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
        """(N,) of a good row, whether each image stood the attack: 0, 1, or a random model's share of draws."""
        key = row["key"]
        if key not in self._standing:
            arrays = self.arrays(row, "robust", "bits")
            bits = arrays["bits"].mean(1, dtype=np.float64) if "bits" in arrays else arrays["robust"]
            self._standing[key] = bits.astype(np.float64)
        return self._standing[key]

    def audit(self, row: Row) -> Any:
        """What the audit wrote beside a row, FOLDER/audit/KEY.json; None where there was none."""
        path = self.stores[row["key"]].folder / "audit" / f"{row['key']}.json"
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None


def with_rows(folder: Path) -> list[Path]:
    """The folder itself where it holds rows, otherwise those of its subfolders that do; StoreError where none does."""
    found = [path for path in (folder, *sorted(folder.glob("*/"))) if any(path.glob("rows/*.json"))]
    if not found:
        missing = "holds no rows/*.json, nor does any folder in it" if folder.is_dir() else "is not there"
        raise StoreError(f"{folder.absolute()} {missing}: name a folder that a grid wrote, such as results/cifar10_pgd")
    return found[:1] if found[0] == folder else found
