from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.core.errors import StoreError
from robustbench_local.storage.packing import pack
from robustbench_local.storage.row import Row, row_key
from robustbench_local.storage.sealing import SCHEMA, sealed, written
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, certify, stored

OK = a_row([True, False, True], ids="0:3")[0]
ERROR = a_row(None, ids="0:3")[0]
KEY = OK["key"]
ARRAYS = {
    "robust": np.array([True, False, True]),
    "clean": np.ones(3, dtype=bool),
    "ids": np.arange(3),
    "labels": np.zeros(3, dtype=np.int64),
}

WRITER = """
import sys, numpy as np
from robustbench_local.storage.row import row_key
from robustbench_local.storage.store import Store
store, (who, count, keys) = Store(sys.argv[1]), map(int, sys.argv[2:])
for i in range(count):
    value = who * 1000 + i
    arrays = {"value": np.full(20_000, value), "noise": np.random.default_rng(value).random(20_000)}
    definition = {"value": value if keys == 0 else i % keys}
    row = {"status": "ok", "definition": definition, "results": {"n": 20_000}, "value": value}
    store.write(row_key(definition), row, arrays)
    print(value, flush=True)
"""


def write_ok(store: Store) -> None:
    store.write(KEY, OK, ARRAYS)


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    x_adv = np.random.default_rng(0).random((3, 1, 4, 4), dtype=np.float32)
    made = store.write(KEY, OK, ARRAYS | {"x_adv": x_adv})
    row = store.read(KEY)
    assert row is not None and row == made
    assert (row["results"], row["key"], row["schema"], row["status"]) == (OK["results"], KEY, SCHEMA, "ok")
    arrays = store.arrays(KEY)
    assert arrays["robust"].tolist() == [True, False, True]
    assert arrays["x_adv"].dtype == np.float32
    assert np.array_equal(arrays["x_adv"], x_adv)
    assert store.arrays(KEY, "robust", "bits").keys() == {"robust"}
    assert store.rows() == [row]


def test_numpy_values_and_what_json_has_no_form_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(KEY, OK | {"x": np.float32(0.5), "y": (np.int64(3), float("nan")), "z": float("inf")}, ARRAYS)
    row = store.read(KEY)
    assert row is not None
    assert (row["x"], row["y"], row["z"]) == (0.5, [3, None], None)
    other = a_row([True] * 3, seed=1)[0]
    with pytest.raises(StoreError, match="object"):
        store.write(other["key"], other | {"x": object()}, ARRAYS)
    with pytest.raises(StoreError, match="it is the row of"):
        store.write(other["key"], OK, ARRAYS)
    assert store.read(other["key"]) is None


def test_key_is_of_the_meaning() -> None:
    definition = {"data": "mnist", "attack_settings": {"steps": 40, "step_size": "1/255"}, "eps": 1.0}
    same = {"eps": 1, "attack_settings": {"step_size": "1/255", "steps": 40}, "data": "mnist"}
    assert row_key(definition) == row_key(same)
    assert row_key(definition) != row_key(definition | {"eps": 1.5})
    assert row_key(definition) != row_key(definition | {"eps": "1"})
    assert len(row_key(definition)) >= 16
    with pytest.raises(StoreError, match="nan"):
        row_key({"eps": float("nan")})


def test_error_rows_are_to_do_again_and_never_replace_a_good_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(KEY, ERROR)
    assert not store.done(KEY)
    assert [row["status"] for row in store.rows()] == ["error"]
    write_ok(store)
    assert store.done(KEY)
    store.write(KEY, ERROR)
    assert store.done(KEY)
    assert not store.done("never written")


@pytest.mark.parametrize("content", ["", '{"status": "ok", "key": "a"', "[1]", '{"schema": 1, "checksum": 0}', "\0\0"])
def test_a_torn_row_counts_as_missing_says_so_and_is_set_aside(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    write_ok(store)
    (tmp_path / "rows" / f"{KEY}.json").write_text(content)
    with pytest.warns(UserWarning, match=rf"{KEY}\.json counts as missing.*it is {KEY}\.json\.damaged now"):
        assert store.read(KEY) is None
    assert (tmp_path / "rows" / f"{KEY}.json.damaged").read_text() == content
    write_ok(store)
    assert store.done(KEY)


@pytest.mark.parametrize("changes", [{"schema": SCHEMA + 1}, {"checksum": None}])
def test_a_row_of_another_version_counts_as_missing_and_stays(tmp_path: Path, changes: Row) -> None:
    store = Store(tmp_path)
    write_ok(store)
    path = tmp_path / "rows" / f"{KEY}.json"
    row = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(row))
    with pytest.warns(UserWarning, match="schema|no checksum"):
        assert store.rows() == []
    assert path.exists()


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where every figure, word and list of a row is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(each for key, item in inner for each in places(item, (*path, key)))]


def changed(row: Row, path: tuple[str | int, ...], value: object) -> Row:
    row = json.loads(json.dumps(row))
    holder = row
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index]
    holder[path[-1]] = value  # type: ignore[index]
    return row


@pytest.mark.filterwarnings("ignore:.*counts as missing")
def test_no_digit_or_word_of_a_row_can_be_edited(tmp_path: Path) -> None:
    """Nor can it be put under the name of another cell."""
    store = Store(tmp_path)
    made = store.write(KEY, OK, ARRAYS)
    path = tmp_path / "rows" / f"{KEY}.json"
    everywhere = places(made)
    assert len(everywhere) > 50
    for place in everywhere:
        old = made
        for key in place:
            old = old[key]  # type: ignore[index]
        new = not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else "another"
        path.write_bytes(written(changed(made, place, new)))
        assert store.read(KEY) is None, place
    other = a_row([True] * 3, seed=1)[0]["key"]
    (tmp_path / "rows" / f"{other}.json").write_bytes(written(made))
    assert store.read(other) is None
    path.write_bytes(written(made))
    assert store.read(KEY) == made


WRONG: list[tuple[str, object]] = [
    ("results.robust_accuracy", "0.5"),
    ("results.robust_accuracy", 1.5),
    ("results.robust_accuracy", None),
    ("results.robust_interval", [0.1]),
    ("results.n", "3"),
    ("results.n", 4),
    ("results.flags", "near_tie"),
    ("results.per_class", [{"class": 3}]),
    ("results.stochastic", 1),
    ("results", []),
    ("definition.ids", "0:x"),
    ("definition.ids", 7),
    ("definition.threat", "linf"),
    ("definition.access", "all"),
    ("definition.eps", "8/255"),
    ("definition.attack_settings", None),
    ("definition.defense_version", "1"),
    ("definition", 1),
    ("status", "fine"),
    ("created", 5),
    ("arrays", ["robust"]),
    ("arrays", {}),
    ("results.clean_accuracy", True),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_a_row_with_a_field_of_another_kind_is_named_even_where_its_checksum_and_key_are_right(
    tmp_path: Path, where: str, value: object
) -> None:
    store = Store(tmp_path)
    row = changed(store.write(KEY, OK, ARRAYS), tuple(where.split(".")), value)
    row["key"] = row_key(row["definition"])
    (tmp_path / "rows" / f"{row['key']}.json").write_bytes(written(sealed(row)))
    (tmp_path / "rows" / f"{KEY}.npz").replace(tmp_path / "rows" / f"{row['key']}.npz")
    with pytest.warns(UserWarning, match=f"{row['key']}.json counts as missing"):
        assert store.read(row["key"]) is None


def test_what_is_no_plain_file_is_named_and_nobody_waits_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_ok(store)
    (tmp_path / "rows" / "folder.json").mkdir()
    os.mkfifo(tmp_path / "rows" / "pipe.json")
    with pytest.warns(UserWarning, match="no plain file") as said:
        assert [row["key"] for row in store.rows()] == [KEY]
    assert len(said) == 2


@pytest.mark.parametrize("damage", ["absent", "truncated", "other run"])
def test_a_row_whose_arrays_are_damaged_counts_as_missing(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    write_ok(store)
    path = tmp_path / "rows" / f"{KEY}.npz"
    if damage == "absent":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        np.savez_compressed(path, robust=np.array([True, True, True]))
    with pytest.warns(UserWarning, match=rf"{KEY}\.npz beside it"):
        assert not store.done(KEY)
    if damage != "other run":
        with pytest.raises(StoreError, match="run its grid again"):
            store.arrays(KEY)


@pytest.mark.filterwarnings("ignore:.*counts as missing")
def test_no_byte_of_the_arrays_can_be_changed(tmp_path: Path) -> None:
    """Neither in their data nor in headers nor in the archive's directory: the arrays are right or missing."""
    store = Store(tmp_path)
    write_ok(store)
    path = tmp_path / "rows" / f"{KEY}.npz"
    whole = path.read_bytes()
    missing = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        if not Store(tmp_path).done(KEY):
            missing += 1
        else:  # a byte that says nothing, such as a date
            found = store.arrays(KEY)
            assert found.keys() == ARRAYS.keys()
            assert all(np.array_equal(found[name], values) for name, values in ARRAYS.items())
    assert missing > 0.4 * len(whole) / 3


ODD = {
    "of another length": np.arange(4),
    "of objects": np.array([{}, 1, None], dtype=object),
    "of text": np.array(["a", "b", "c"]),
    "a single number": np.array(3),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_arrays_of_another_kind_are_named(tmp_path: Path, odd: np.ndarray) -> None:
    store = Store(tmp_path)
    with pytest.warns(UserWarning, match=rf"{KEY}\.npz beside it"):
        store.write(KEY, OK, ARRAYS | {"robust": odd})
        assert not store.done(KEY)


def writer(folder: Path, who: int, count: int, keys: int = 0) -> subprocess.Popen[str]:
    """A process that writes `count` rows, in turn under the same few keys or (0) each under one of its own."""
    command = [sys.executable, "-c", WRITER, str(folder), str(who), str(count), str(keys)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def values_of_whole_rows(store: Store) -> set[int]:
    """Every file is whole, and every row's arrays are its own."""
    for path in (store.folder / "rows").glob("[!.]*.json"):
        json.loads(path.read_text())
    for path in (store.folder / "rows").glob("[!.]*.npz"):
        assert store.arrays(path.stem).keys() == {"value", "noise"}
    rows = [row for path in (store.folder / "rows").glob("[!.]*.json") if (row := store.read(path.stem)) is not None]
    for row in rows:
        arrays = store.arrays(row["key"])
        assert (arrays["value"] == row["value"]).all()
        assert np.array_equal(arrays["noise"], np.random.default_rng(row["value"]).random(20_000))
    return {row["value"] for row in rows}


@pytest.mark.filterwarnings("error")
@pytest.mark.slow
def test_killed_at_any_instant_loses_the_row_in_flight_and_no_other(tmp_path: Path) -> None:
    finished: set[int] = set()
    for attempt in range(8):
        process = writer(tmp_path, attempt, 1000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        finished |= {1000 * attempt, *map(int, rest)}
    found = values_of_whole_rows(Store(tmp_path))
    assert found >= finished
    assert len(found - finished) <= 8  # written, and killed before it could say so


@pytest.mark.filterwarnings("ignore:.*of another run")
def test_several_writers_of_the_same_rows(tmp_path: Path) -> None:
    processes = [writer(tmp_path, who, 14, keys=7) for who in range(1, 4)]
    assert [len(process.communicate()[0].splitlines()) for process in processes] == [14, 14, 14]
    values_of_whole_rows(Store(tmp_path))
    assert len(list((tmp_path / "rows").glob("*.json"))) == 7
    assert not list((tmp_path / "rows").glob(".*"))


def test_abandoned_files_are_swept_and_fresh_ones_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    old, fresh = tmp_path / "rows" / ".a.json.1-ab.tmp", tmp_path / "rows" / ".b.json.2-cd.tmp"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, 0))
    store.check_writable()
    assert sorted((tmp_path / "rows").iterdir()) == [fresh]


# In a mount namespace of its own, so that neither root nor anybody else can see or write past it.
MOUNTED = """
import subprocess, sys, numpy as np
from pathlib import Path
from robustbench_local.core.errors import StoreError
from robustbench_local.storage.row import row_key
from robustbench_local.storage.store import Store
folder, what = Path(sys.argv[1]), sys.argv[2]
before, after = ({"status": "ok", "definition": {"of": each}, "results": {"n": 3}} for each in ("before", "after"))
one, two = (row_key(row["definition"]) for row in (before, after))
mount = lambda *words: subprocess.run(["mount", *words, str(folder)], check=True)
mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
store = Store(folder)
store.check_writable()
store.write(one, before, {"robust": np.arange(3) > 0})
if what == "full":
    big = np.random.default_rng(0).random(100_000)
    actions = [lambda: store.write(two, after, {"x_adv": big})]
else:
    mount("-o", "remount,ro")
    actions = [store.check_writable, lambda: store.write(two, after)]
for action in actions:
    try:
        action()
    except StoreError as error:
        print(error)
assert store.done(one) and not store.done(two)
assert store.arrays(one)["robust"].tolist() == [False, True, True]
assert not list((folder / "rows").glob(".*")), list((folder / "rows").iterdir())
if what == "full":
    store.write(two, after)
"""


def in_namespace(*command: str) -> list[str]:
    return ["unshare", "--map-root-user", "--mount", *command]


def can_mount(folder: Path) -> bool:
    if not shutil.which("unshare"):
        return False
    command = in_namespace("mount", "-t", "tmpfs", "tmpfs", str(folder))
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize(("what", "cause"), [("full", "the disk is full"), ("read-only", "the folder is read-only")])
def test_a_real_full_disk_and_a_real_read_only_folder(tmp_path: Path, what: str, cause: str) -> None:
    if not can_mount(tmp_path):
        pytest.skip("no mount namespaces here")
    command = in_namespace(sys.executable, "-c", MOUNTED, str(tmp_path), what)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == (1 if what == "full" else 2)
    assert all(cause in line and str(tmp_path) in line for line in said)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="read-only"):
        Store(tmp_path).check_writable()


@pytest.mark.parametrize(("number", "cause"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_causes_are_named_wherever_they_strike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str
) -> None:
    store = Store(tmp_path)
    write_ok(store)

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match=cause):
            store.write(KEY, OK | {"grid": "another"}, ARRAYS)
    assert [row.get("grid") for row in store.rows()] == [None]
    assert not list((tmp_path / "rows").glob(".*"))


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="results"):
        Store(tmp_path / "results").check_writable()


def test_arrays_are_read_in_the_order_of_their_axes(tmp_path: Path) -> None:
    store, bits = Store(tmp_path), np.arange(6).reshape(3, 2) % 2 > 0
    row, _ = a_row([1, 0, 1], ids="0:3")
    made = {"robust": bits[:, 0], "clean": bits[:, 0], "ids": np.arange(3), "labels": np.zeros(3, int)}
    made |= {"bits": np.asfortranarray(bits), "scores": np.empty((3, 0)), "x_adv": np.ones((3, 1, 2, 2), ">f4")}
    store.write(row.key, row, made)
    found = store.arrays(row.key)
    assert found.keys() == made.keys()
    for name, values in made.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype and found[name].flags.writeable


def test_some_rows_of_an_array_are_read_without_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    x_adv = np.random.default_rng(0).random((3, 2, 4, 5), dtype=np.float32)
    store.write(KEY, OK, ARRAYS | {"x_adv": x_adv})
    for places in ([2, 0], [1], [0, 0, 2], []):
        assert np.array_equal(store.array_rows(KEY, "x_adv", places), x_adv[places].reshape(-1, 2, 4, 5))
    with pytest.raises(StoreError, match="damaged"):
        store.array_rows(KEY, "x_adv", [3])
    with pytest.raises(StoreError, match="damaged"):
        store.array_rows(KEY, "scores", [0])


def test_a_certificate_is_kept_apart_from_the_rows_of_attacks(tmp_path: Path) -> None:
    store = stored(tmp_path, a_row([1, 0, 1, 1]))
    made = certify(store, [1, 0, 0, 1])
    (row,) = store.rows()
    assert {each.key for each in store.every()} == {row.key, made.key} and made.certifies and not row.certifies
    assert store.arrays(made.key)["certified"].tolist() == [True, False, False, True]
    pack(tmp_path)
    assert {each.key for each in Store(tmp_path).every()} == {row.key, made.key}
    assert Store(tmp_path).read(made.key) == made


@pytest.mark.parametrize("fault", [{"certified_accuracy": 1.5}, {"confidence": "high"}, {"seconds": -1}])
def test_a_certificate_that_is_not_as_certificates_are_is_refused(tmp_path: Path, fault: dict[str, Any]) -> None:
    made = certify(Store(tmp_path / "one"), [1, 0, 0, 1])
    row = Row({**made, "results": {**made["results"], **fault}})
    with pytest.raises(StoreError, match=next(iter(fault))):
        Store(tmp_path / "two").write(made.key, row, Store(tmp_path / "one").arrays(made.key))
