"""The rows of one or more results folders, and the per-sample arrays beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from robustbench_local.audit.records import Audits
from robustbench_local.audit.records import audits as kept_audits
from robustbench_local.core.errors import StoreError
from robustbench_local.core.escaping import visible
from robustbench_local.core.frames import data_frame
from robustbench_local.report import grid_file
from robustbench_local.report.certified import Certificates, Certified, Contradiction
from robustbench_local.report.model_info import ModelInfo
from robustbench_local.report.table import Table, robust_tables, shares_in
from robustbench_local.storage.archive import NAME
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import VERSIONS, Row, corrupted_shares
from robustbench_local.storage.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMNS = (
    *("data", "split", "images", "model", "defense", "attack", "threat", "access", "adaptive", "seed", "status"),
    *("clean", "clean_low", "clean_high", "robust", "robust_low", "robust_high", "robust_8bit"),
    *("certified", "certified_low", "certified_high", "corruption", "corruption_low", "corruption_high"),
    *("forwards_mean", "backwards_mean", "distance_median", "seconds", "flags", "error", "key"),
)
_EVERY = ("robust", "bits", "ids", "labels", "clean")  # arrays that reports ask every row for


@dataclass(frozen=True)
class Results:
    """rows, and per key the store that holds its arrays. grids: of several, the rows of each by its folder's name.

    certificates: rows that say which images no attack can break.
    """

    rows: Sequence[Row]
    stores: dict[str, Store]
    _shares: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)
    grids: dict[str, list[Row]] = field(default_factory=dict, repr=False)
    certificates: Sequence[Row] = ()

    @classmethod
    def of(cls, rows: Iterable[Row], store: Store) -> Results:
        rows = list(rows)
        attacked, certified = _apart(rows)
        return cls(attacked, {row.key: store for row in rows}, certificates=certified)

    @classmethod
    def read(cls, folders: Iterable[str | Path]) -> Results:
        """All rows of these folders; a cell that is in several of them, or of several versions, counts once.

        StoreError where there is none, or none that can be read.

        A folder that holds no rows is read as those of its subfolders that do; each of them is then a grid by itself,
        with attacks and tables of its own, while folders that are named are parts of one.
        """
        rows: dict[str, Row] = {}
        stores: dict[str, Store] = {}
        named = [Path(name).expanduser() for name in folders]
        found = [one for folder in named for one in with_rows(folder)]
        grids: dict[str, list[Row]] = {}
        for folder in found:
            store = Store(folder, keep=_EVERY)
            attacked, certified = _apart(store.every())
            grids[folder.name] = newest(attacked)
            for row in (*grids[folder.name], *certified):
                if row.key not in rows or not rows[row.key].ok:
                    rows[row.key], stores[row.key] = row, store
        if not any(row.is_cell for row in rows.values()):
            raise StoreError(f"no row in {', '.join(str(folder) for folder in found)} can be read: see the warnings")
        alone = len(named) > 1 or len([name for name, own in grids.items() if own]) < 2
        attacked, certified = _apart(rows.values())
        return cls(attacked, stores, grids={} if alone else grids, certificates=certified)

    def arrays(self, row: Row, *names: str) -> dict[str, Array]:
        """Those of these arrays that a good row has, to be copied before they are written to. StoreError where they are
        damaged.
        """
        return self.stores[row.key].arrays(row.key, *names)

    def array_rows(self, row: Row, name: str, places: Sequence[int]) -> Array:
        """(n, ...): of one array of a good row those of these places. StoreError where it is damaged."""
        return self.stores[row.key].array_rows(row.key, name, places)

    def robust_shares(self, row: Row) -> npt.NDArray[np.float64]:
        """(N,) of a good row, whether each image is robust: 0, 1, or a random model's share of draws. See shares_in."""
        key = row.key
        if key not in self._shares:
            self._shares[key] = shares_in(self.stores[key], self.audits)(row)
        return self._shares[key]

    def corrupted_shares(self, row: Row) -> npt.NDArray[np.float64] | None:
        """(N,) of a good row of a corruption, whether each corrupted image is classified rightly: 0, 1, or a random
        model's share of draws; None where its arrays do not say.
        """
        arrays = self.arrays(row, "corrupted", "bits")
        return corrupted_shares(arrays) if arrays else None

    def tables(self) -> list[Table]:
        """The tables of all rows, as audited; of several grids each one's, those of the most images first."""
        return list(self._tables)

    @functools.cached_property
    def _tables(self) -> list[Table]:
        if not self.grids:
            return robust_tables(self.rows, self.robust_shares, self.audits, self.from_below)
        found = [
            replace(table, grid=visible(name))
            for name, rows in self.grids.items()
            for table in robust_tables(rows, self.robust_shares, self.audits, self.from_below)
        ]
        return sorted(found, key=lambda table: (table.data, -table.images, table.stochastic, table.threat))

    def to_frame(self) -> DataFrame:
        """A row per cell, as a pandas DataFrame: accuracies in [0, 1] with their 95 % intervals, nothing where it
        failed, and then why in `error`. No audit has lowered these figures: `tables` has those that are lowered.
        """
        records = [_record(row, self.from_below.of(row)) for row in self.rows]
        return data_frame({name: [record.get(name) for record in records] for name in _COLUMNS})

    @functools.cached_property
    def from_below(self) -> Certificates:
        """What is certain of the models."""
        return Certificates(self.certificates, self.arrays)

    @functools.cached_property
    def contradictions(self) -> list[Contradiction]:
        """Attacks that broke what is certified."""
        return [found for table in self._tables for line in table.lines for found in line.contradictions]

    @functools.cached_property
    def good(self) -> dict[str, Row]:
        """The rows that have results, by key."""
        return {row.key: row for row in self.rows if row.ok}

    @property
    def baseline(self) -> str | None:
        """The defense that corruption errors are also given relative to, as the grids said."""
        return self._said.baseline

    @property
    def model_infos(self) -> Mapping[str, ModelInfo]:
        """Who models are of, as the grids said, by "MODEL" or "MODEL / DEFENSE"."""
        return self._said.models

    @functools.cached_property
    def _said(self) -> grid_file.Said:
        return grid_file.kept(dict.fromkeys(store.folder for store in self.stores.values()))

    @functools.cached_property
    def audits(self) -> Audits:
        """Every audit kept beside the rows."""
        stores = {store.folder: store for store in self.stores.values()}
        return Audits(audit for store in stores.values() for audit in kept_audits(store))


def load_results(*folders: str | Path) -> Results:
    """What grids wrote into these folders, results/NAME or one that holds several: see `Results`.

    `to_frame` gives a row per cell, `tables` what the page shows. StoreError where there is nothing to read.
    """
    return Results.read(folders)


def _apart(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Those of attacks, and certificates."""
    rows = list(rows)
    return [row for row in rows if row.is_cell], [row for row in rows if row.certifies]


def _record(row: Row, certified: Certified | None) -> dict[str, Any]:
    about = {key: row.said(key) for key in ("data", "split", "model", "defense", "attack", "threat", "access", "seed")}
    about |= {"images": row.images, "adaptive": row.adaptive, "status": row["status"], "key": row.key}
    if certified is not None and (share := certified.rate) is not None and not row.corrupts:
        about |= {"certified": share.value, "certified_low": share.low, "certified_high": share.high}
    if not row.ok:
        return about | {"error": row.why}
    found = cast(dict[str, Any], row.results)
    rates: dict[str, float | None] = {}
    for name in ("clean", "robust", "corruption"):
        low, high = found.get(f"{name}_interval") or (None, None)
        rates |= {name: found.get(f"{name}_accuracy"), f"{name}_low": low, f"{name}_high": high}
    kept = {name: found[name] for name in ("forwards_mean", "backwards_mean", "distance_median", "seconds")}
    return about | rates | kept | {"robust_8bit": found["robust_accuracy_8bit"], "flags": ", ".join(found["flags"])}


def newest(rows: Iterable[Row]) -> list[Row]:
    """Without the good rows of a cell whose attack or defense a good row has in a later version."""
    cells = [(row, row.of_cell(VERSIONS) if row.ok else "") for row in rows]
    last: dict[str, tuple[list[int], int]] = {}
    for row, cell in cells:
        if row.ok:
            last[cell] = max(last.get(cell, row.versions), row.versions)
    return [row for row, cell in cells if not row.ok or row.versions == last[cell]]


def with_rows(folder: Path) -> list[Path]:
    """The folder itself where it holds rows, otherwise those of its subfolders that do; StoreError where none does."""
    places = (folder, *sorted(folder.glob("*/")))
    found = [place for place in places if any(place.glob("rows/*.json")) or (place / NAME).is_file()]
    if not found:
        missing = f"holds no rows/*.json, no {NAME}, nor does any folder in it" if folder.is_dir() else "is not there"
        raise StoreError(f"{folder.absolute()} {missing}: name a folder that a grid wrote, such as results/cifar10_pgd")
    return found[:1] if found[0] == folder else found
