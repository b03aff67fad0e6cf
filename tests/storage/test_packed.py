"""Packed rows are read as loose ones are; a damaged archive is named and read as far as it goes."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustbench_local.cli.main import main
from robustbench_local.core.errors import StoreError
from robustbench_local.report.results import with_rows
from robustbench_local.storage import archive as packed
from robustbench_local.storage import packing
from robustbench_local.storage.archive import NAME, Packed
from robustbench_local.storage.npz import Array
from robustbench_local.storage.packing import pack
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row

N = 500
BITS = {seed: np.random.default_rng(seed).random(N) < 0.5 for seed in range(10)}
ROWS = {seed: a_row(list(bits), ids=f"0:{N}", seed=seed)[0] for seed, bits in BITS.items()}
FAILED = a_row(None, seed=99)[0]


def key(seed: int) -> str:
    return str(ROWS[seed]["key"])


def arrays(seed: int) -> dict[str, Array]:
    return {"labels": np.arange(N), "ids": np.arange(N), "clean": BITS[0] | True, "robust": BITS[seed]}


def write(store: Store, seed: int, **changes: object) -> Row:
    return store.write(key(seed), ROWS[seed] | changes, arrays(seed))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "grid")
    for seed in range(8):
        write(store, seed)
    store.write(FAILED["key"], FAILED)
    return store


def seeds(store: Store) -> list[int]:
    return sorted(row["definition"]["seed"] for row in store.rows())


ALL = [*range(8), 99]


def test_packed_rows_are_read_as_loose_ones_are(store: Store) -> None:
    rows, before = store.rows(), sum(file.stat().st_size for file in (store.folder / "rows").iterdir())
    count, size = pack(store.folder)
    assert count == 17 and size == (store.folder / NAME).stat().st_size < before / 4
    assert not list((store.folder / "rows").iterdir())
    again = Store(store.folder)
    assert again.rows() == rows and again.read(rows[3]["key"]) == rows[3] and again.read("c") is None
    assert again.done(key(3)) and not again.done(FAILED["key"])
    for seed in range(8):
        found = again.arrays(key(seed))
        assert found.keys() == arrays(seed).keys()
        assert all((found[name] == values).all() for name, values in arrays(seed).items())
    assert list(again.arrays(key(1), "robust")) == ["robust"]
    assert with_rows(store.folder) == with_rows(store.folder.parent) == [store.folder]


def test_packed_audits_are_read_as_loose_ones_are_and_are_no_rows(store: Store) -> None:
    store.keep_audit("c.json", {"of": "old"})
    store.keep_audit("a.json", {"of": "first"})
    rows, kept = store.rows(), store.audits()
    assert {name: record["of"] for name, record in kept.items()} == {"a.json": "first", "c.json": "old"}
    assert pack(store.folder)[0] == 19 and not list((store.folder / "audits").iterdir())
    again = Store(store.folder)
    assert again.audits() == kept and again.rows() == rows
    again.keep_audit("c.json", {"of": "new"})
    for _ in range(2):
        assert [record["of"] for record in Store(store.folder).audits().values()] == ["first", "new"]
        pack(store.folder)


def test_what_is_written_after_counts_and_is_packed_with_the_rest(store: Store) -> None:
    pack(store.folder)
    again = Store(store.folder)
    write(again, 1, grid="later")
    write(again, 9)
    for _ in range(2):
        rows = {row["definition"]["seed"]: row for row in Store(store.folder).rows()}
        assert sorted(rows) == [*range(8), 9, 99] and [seed for seed in rows if "grid" in rows[seed]] == [1]
        pack(store.folder)


def test_an_archive_is_the_same_to_the_byte_whenever_it_is_made(store: Store) -> None:
    pack(store.folder)
    first = (store.folder / NAME).read_bytes()
    pack(store.folder)
    assert (store.folder / NAME).read_bytes() == first


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda whole: whole[:-200],
    "a hole": lambda whole: whole[:300] + whole[400:],
    "a byte": lambda whole: whole[:900] + bytes([whole[900] ^ 1]) + whole[901:],
    "empty": lambda _: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "more": lambda whole: whole + b"more",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_archive_is_named_and_read_as_far_as_it_goes(store: Store, damage: Callable[[bytes], bytes]) -> None:
    rows = store.rows()
    pack(store.folder)
    archive = store.folder / NAME
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.warns(UserWarning, match=NAME.replace(".", "[.]") + " is damaged"):
        found = Store(store.folder).rows()
    assert all(row in rows for row in found)
    write(Store(store.folder), 9)  # the grid goes on
    content = archive.read_bytes()
    with pytest.warns(UserWarning, match="is damaged"):
        pack(store.folder)
    assert archive.with_name(f"{NAME}.damaged").read_bytes() == content
    assert [row for row in Store(store.folder).rows() if row["definition"]["seed"] != 9] == found
    assert 9 in seeds(Store(store.folder))


def test_what_comes_before_the_damage_is_kept(store: Store) -> None:
    pack(store.folder)
    archive = store.folder / NAME
    whole = lzma.decompress(archive.read_bytes())
    archive.write_bytes(lzma.compress(whole[: len(whole) - 60_000]))  # rows come first, then arrays
    with pytest.warns(UserWarning, match="is damaged"):
        found = Packed(archive).files
    assert 9 < len(found) < 17


def test_members_that_are_no_files_of_rows_are_ignored_and_named(store: Store, tmp_path: Path) -> None:
    rows = store.rows()
    pack(store.folder)
    archive = store.folder / NAME
    files = Packed(archive).files
    with tarfile.open(archive, "w:xz") as made:
        for name, kind, target in [
            ("rows", tarfile.DIRTYPE, ""),
            ("a.json", tarfile.SYMTYPE, "/etc/passwd"),
            ("b.json", tarfile.LNKTYPE, "c"),
            ("c.json", tarfile.CHRTYPE, ""),
            ("d.json", tarfile.FIFOTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            made.addfile(member)
        more = {next(iter(files)): b"twice", "../e.json": b"{}", str(tmp_path / "f.json"): b"{}"}
        for name, content in (*files.items(), *more.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    with pytest.warns(UserWarning, match=f"{NAME} holds what is neither a row nor an audit.*'rows'.* and 4 more"):
        assert Store(store.folder).rows() == rows
    assert not (tmp_path / "f.json").exists() and not (store.folder.parent / "e.json").exists()


@pytest.mark.parametrize("kind", ["a row", "a header"])
def test_a_bomb_is_read_no_further_than_an_archive_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 2**22)
    member = tarfile.TarInfo("a.json")
    member.size = 2**25
    member.type = tarfile.REGTYPE if kind == "a row" else tarfile.XHDTYPE
    (tmp_path / NAME).write_bytes(lzma.compress(member.tobuf() + bytes(2**25)))
    with pytest.warns(UserWarning, match="unpacks to more than 4 MiB"):
        assert Packed(tmp_path / NAME).files == {}


def test_no_more_is_packed_than_can_be_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 2**15)
    with pytest.raises(StoreError, match="leave them loose"):
        pack(store.folder)
    assert seeds(Store(store.folder)) == ALL and not (store.folder / NAME).exists()


def test_a_damaged_row_is_not_packed(store: Store) -> None:
    for seed, kind in ((1, "json"), (2, "npz")):
        file = store.folder / "rows" / f"{key(seed)}.{kind}"
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="counts as missing") as said:
        pack(store.folder)
    assert {name for warning in said for name in (key(1), key(2)) if name in str(warning.message)} == {key(1), key(2)}
    left = {file.name for file in (store.folder / "rows").iterdir()}
    assert left == {f"{key(1)}.json.damaged", f"{key(2)}.npz.damaged"}


def test_what_a_run_writes_while_it_is_packed_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was packed is written anew, and another for the first time, before packing comes to its end."""
    reader = Store(store.folder)
    assert seeds(reader) == ALL
    archive = packing._write

    def meanwhile(path: Path, files: dict[str, bytes]) -> None:
        archive(path, files)
        write(store, 1, grid="meanwhile")
        write(store, 9)

    monkeypatch.setattr(packing, "_write", meanwhile)
    pack(store.folder)
    for each in (reader, store, Store(store.folder)):
        rows = {row["definition"]["seed"]: row.get("grid") for row in each.rows()}
        assert rows == dict.fromkeys([*ALL, 9]) | {1: "meanwhile"}
        assert (each.arrays(key(9))["robust"] == BITS[9]).all()


@pytest.mark.filterwarnings("error")
def test_a_run_two_packs_and_a_report_at_once_lose_nothing(store: Store) -> None:
    stop, failed = threading.Event(), list[BaseException]()

    def until_the_end(work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            failed.append(error)

    def report() -> None:
        assert seeds(reader) == ALL

    reader = Store(store.folder)
    jobs = [lambda: pack(store.folder), lambda: pack(store.folder), report]
    threads = [threading.Thread(target=until_the_end, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for turn in range(60):
        write(store, turn % 8, turn=turn)
        if not os.path.exists(store.folder / "rows") or failed:
            break
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert {row["turn"] for row in Store(store.folder).rows() if "turn" in row} == {*range(52, 60)}


def test_nothing_to_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(tmp_path)]) == 2
    assert "there are no rows in" in capsys.readouterr().err
    assert main(["pack", str(tmp_path / "nowhere")]) == 2
