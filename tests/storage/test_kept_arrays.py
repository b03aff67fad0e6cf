"""Arrays that stay in memory are those of the file, read-only, and never those of a file that was there before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.core.errors import StoreError
from robustbench_local.storage import npz, store
from robustbench_local.storage.packing import pack
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, stored

KEEP = ("robust", "bits", "ids")
LARGE = npz._SMALL  # bytes


def kept(folder: Path) -> Store:
    there = Store(folder, keep=KEEP)
    assert len(there.rows()) == 1
    return there


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read for their arrays from now on."""
    found: list[str] = []
    whole = Store._of_arrays

    def of_arrays(self: Store, key: str, read: Any) -> Any:
        found.append(key)
        return whole(self, key, read)

    monkeypatch.setattr(Store, "_of_arrays", of_arrays)
    return found


def alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def again(folder: Path, made: tuple[Row, np.ndarray]) -> None:
    """Replace the row by one of the same cell that found otherwise."""
    row, bits = made
    stored(folder, (row, ~bits))


@pytest.mark.parametrize("packed", [False, True])
def test_they_are_as_in_the_file_and_read_once(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    key = stored(tmp_path, a_row([1, 0, 1, 1])).rows()[0].key
    if packed:
        pack(tmp_path)
    store, read = kept(tmp_path), counted(monkeypatch)
    for names in (("robust",), ("ids", "robust"), KEEP):
        found = store.arrays(key, *names)
        assert alike(found, npz_of(tmp_path, key, names))
        with pytest.raises(ValueError, match="read-only"):
            found["robust"][0] = False
    assert read == [key] * 3  # by npz_of alone
    store.arrays(key, "robust", "distance")
    store.arrays(key)
    assert read == [key] * 5


def npz_of(folder: Path, key: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return Store(folder).arrays(key, *names)


def test_another_file_in_its_place_is_read(tmp_path: Path) -> None:
    made = a_row([1, 0, 1, 1])
    stored(tmp_path, made)
    store = kept(tmp_path)
    again(tmp_path, made)
    assert store.arrays(made[0].key, "robust")["robust"].tolist() == [False, True, False, False]
    (tmp_path / "rows" / f"{made[0].key}.npz").unlink()
    with pytest.raises(StoreError, match="is not there"):
        store.arrays(made[0].key, "robust")


def test_who_does_not_look_at_the_file_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_row([1, 0, 1, 1])
    stored(tmp_path, made)
    there = kept(tmp_path)
    known = there._verified[f"{made[0].key}.npz"].file
    again(tmp_path, made)
    monkeypatch.setattr(store, "stamp", lambda path: known)
    assert there.arrays(made[0].key, "robust")["robust"].tolist() == [True, False, True, True]  # of the file before


def test_large_ones_are_left_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, bits = a_row(np.tile([True, False], LARGE // 2).tolist(), ids=f"0:{LARGE}")
    stored(tmp_path, (row, bits))
    there, read = kept(tmp_path), counted(monkeypatch)
    assert np.array_equal(there.arrays(row.key, "robust")["robust"], bits)
    assert read == [row.key]


def test_what_all_rows_have_is_held_but_once(tmp_path: Path) -> None:
    rows = [a_row([1, 0, 1, place], seed=place) for place in range(2)]
    stored(tmp_path, *rows)
    there = Store(tmp_path, keep=KEEP)
    one, two = (there.arrays(row.key, *KEEP) for row in there.rows())
    assert one["ids"] is two["ids"] and one["robust"] is not two["robust"]
