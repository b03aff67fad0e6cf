"""Packed rows are read as loose ones are, and a damaged archive says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustbench_local.cli import main
from robustbench_local.errors import StoreError
from robustbench_local.packed import NAME, pack
from robustbench_local.report.results import with_rows
from robustbench_local.store import Array, Store

LABELS = np.arange(500)


def arrays(seed: int) -> dict[str, Array]:
    return {"labels": LABELS, "robust": np.random.default_rng(seed).random(500) < 0.5}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "grid")
    for seed in range(8):
        store.write(f"{seed}a", {"status": "ok", "value": seed}, arrays(seed))
    store.write("b", {"status": "error", "error": {"message": "no"}})
    return store


def test_packed_rows_are_read_as_loose_ones_are(store: Store) -> None:
    rows, before = store.rows(), sum(file.stat().st_size for file in (store.folder / "rows").iterdir())
    count, size = pack(store.folder)
    assert count == 17 and size == (store.folder / NAME).stat().st_size < before / 4
    assert not list((store.folder / "rows").iterdir())
    packed = Store(store.folder)
    assert packed.rows() == rows and packed.read("3a") == rows[3] and packed.read("c") is None
    assert packed.done("3a") and not packed.done("b")
    for seed in range(8):
        found = packed.arrays(f"{seed}a")
        assert found.keys() == arrays(seed).keys()
        assert all((found[name] == values).all() for name, values in arrays(seed).items())
    assert list(packed.arrays("1a", "robust")) == ["robust"]
    assert with_rows(store.folder) == with_rows(store.folder.parent) == [store.folder]


def test_packed_audits_are_read_as_loose_ones_are_and_are_no_rows(store: Store) -> None:
    store.keep_audit("c.json", b"old")
    store.keep_audit("a.json", b"first")
    rows, kept = store.rows(), store.audits()
    assert kept == {"a.json": b"first", "c.json": b"old"}
    assert pack(store.folder)[0] == 19 and not list((store.folder / "audits").iterdir())
    again = Store(store.folder)
    assert again.audits() == kept and again.rows() == rows
    again.keep_audit("c.json", b"new")
    for _ in range(2):
        assert list(Store(store.folder).audits().values()) == [b"first", b"new"]
        pack(store.folder)


def test_what_is_written_after_counts_and_is_packed_with_the_rest(store: Store) -> None:
    pack(store.folder)
    again = Store(store.folder)
    again.write("1a", {"status": "ok", "value": 100}, arrays(100))
    again.write("c", {"status": "ok", "value": 101})
    for _ in range(2):
        rows = Store(store.folder).rows()
        assert [row.get("value") for row in rows] == [0, 100, 2, 3, 4, 5, 6, 7, None, 101]
        assert (Store(store.folder).arrays("1a")["robust"] == arrays(100)["robust"]).all()
        pack(store.folder)


def test_an_archive_is_the_same_to_the_byte_whenever_it_is_made(store: Store) -> None:
    pack(store.folder)
    first = (store.folder / NAME).read_bytes()
    pack(store.folder)
    assert (store.folder / NAME).read_bytes() == first


@pytest.mark.parametrize("damage", [lambda whole: whole[:-200], lambda whole: whole[:300] + whole[400:], lambda _: b""])
def test_a_damaged_archive_is_named(store: Store, damage: Callable[[bytes], bytes]) -> None:
    pack(store.folder)
    archive = store.folder / NAME
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(StoreError, match=NAME.replace(".", "[.]")):
        Store(store.folder).rows()
    with pytest.raises(StoreError, match=NAME.replace(".", "[.]")):
        pack(store.folder)


def test_nothing_to_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(tmp_path)]) == 2
    assert "there are no rows in" in capsys.readouterr().err
