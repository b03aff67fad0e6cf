"""The rows of a folder -> metrics.md and metrics.json beside them."""

from __future__ import annotations

from pathlib import Path

from robustbench_local.audit.records import audits
from robustbench_local.core.errors import StoreError
from robustbench_local.report import sheets
from robustbench_local.report.members import read_groups
from robustbench_local.report.sheets import Sheet
from robustbench_local.report.statistics import Statistics
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.row import done
from robustbench_local.storage.store import Store


def write_metrics(folder: Path, groups: Path | None = None, folds: int = 5, *, confusion: bool = False) -> list[Sheet]:
    """Write metrics.md and metrics.json beside the rows of a folder, and return the sheets.

    groups: a JSON file of them. DataError or ConfigError for groups or folds that mean nothing; StoreError where there
    is no row with its arrays, or where nothing can be written.
    """
    store = Store(folder)
    every = store.every()
    rows, certificates = [row for row in every if row.is_cell], [row for row in every if row.certifies]
    if not any(map(done, rows)):
        raise StoreError(f"{folder.absolute()} has no row with its arrays beside it: run the grid, or name its folder")
    named = read_groups(groups) if groups else None
    found = Statistics(rows, lambda row: store.arrays(row.key), named, folds, audits(store), certificates)
    made = found.sheets() + (found.confusions() if confusion else [])
    for name, text in (("metrics.md", sheets.markdown(made)), ("metrics.json", sheets.json_text(made))):
        with whole_file(folder / name) as file:
            file.write(text.encode())
    return made
