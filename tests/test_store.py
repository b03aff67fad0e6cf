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

import numpy as np
import pytest

from robustbench_local.errors import StoreError
from robustbench_local.store import SCHEMA, Store, row_key

OK = {"status": "ok", "results": {"n": 3}}
ERROR = {"status": "error", "error": {"type": "ModelError", "message": "no"}}

WRITER = """
import sys, numpy as np
from robustbench_local.store import Store
store, (who, count, keys) = Store(sys.argv[1]), map(int, sys.argv[2:])
for i in range(count):
    value = who * 1000 + i
    arrays = {"robust": np.full(20_000, value), "noise": np.random.default_rng(value).random(20_000)}
    store.write(f"k{value if keys == 0 else i % keys}", {"status": "ok", "value": value}, arrays)
    print(value, flush=True)
"""


def write_ok(store: Store, key: str = "a") -> None:
    store.write(key, OK, {"robust": np.array([True, False, True])})


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    x_adv = np.random.default_rng(0).random((3, 1, 4, 4), dtype=np.float32)
    store.write("a", OK, {"robust": np.array([True, False, True]), "x_adv": x_adv})
    row = store.read("a")
    assert row is not None
    assert (row["results"], row["key"], row["schema"], row["status"]) == ({"n": 3}, "a", SCHEMA, "ok")
    arrays = store.arrays("a")
    assert arrays["robust"].tolist() == [True, False, True]
    assert arrays["x_adv"].dtype == np.float32
    assert np.array_equal(arrays["x_adv"], x_adv)
    assert store.arrays("a", "robust", "bits").keys() == {"robust"}
    assert store.rows() == [row]


def test_numpy_values_and_what_json_has_no_form_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", OK | {"x": np.float32(0.5), "y": (np.int64(3), float("nan")), "z": float("inf")})
    row = store.read("a")
    assert row is not None
    assert (row["x"], row["y"], row["z"]) == (0.5, [3, None], None)
    with pytest.raises(StoreError, match="object"):
        store.write("b", OK | {"x": object()})
    assert store.read("b") is None


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
    store.write("a", ERROR)
    assert not store.done("a")
    assert [row["status"] for row in store.rows()] == ["error"]
    write_ok(store)
    assert store.done("a")
    store.write("a", ERROR)
    assert store.done("a")
    assert not store.done("never written")


@pytest.mark.parametrize("content", ["", '{"status": "ok", "key": "a"', "[1]", '{"status": "ok", "key": "b"}', "\0\0"])
def test_a_torn_row_counts_as_missing_and_says_so(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    write_ok(store)
    (tmp_path / "rows" / "a.json").write_text(content)
    with pytest.warns(UserWarning, match=r"a\.json counts as missing"):
        assert store.read("a") is None


def test_a_row_of_another_schema_counts_as_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_ok(store)
    path = tmp_path / "rows" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1}))
    with pytest.warns(UserWarning, match="schema"):
        assert store.rows() == []


@pytest.mark.parametrize("damage", ["absent", "truncated", "other run"])
def test_a_row_whose_arrays_are_damaged_counts_as_missing(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    write_ok(store)
    path = tmp_path / "rows" / "a.npz"
    if damage == "absent":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        np.savez_compressed(path, robust=np.array([True, True, True]))
    with pytest.warns(UserWarning, match=r"a\.npz beside it"):
        assert not store.done("a")
    if damage != "other run":
        with pytest.raises(StoreError, match="done again"):
            store.arrays("a")


def writer(folder: Path, who: int, count: int, keys: int = 0) -> subprocess.Popen[str]:
    """A process that writes `count` rows, in turn under the same few keys or (0) each under one of its own."""
    command = [sys.executable, "-c", WRITER, str(folder), str(who), str(count), str(keys)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def values_of_whole_rows(store: Store) -> set[int]:
    """Every file is whole, and every row's arrays are its own."""
    for path in (store.folder / "rows").glob("[!.]*.json"):
        json.loads(path.read_text())
    for path in (store.folder / "rows").glob("[!.]*.npz"):
        assert store.arrays(path.stem).keys() == {"robust", "noise"}
    rows = store.rows()
    for row in rows:
        arrays = store.arrays(row["key"])
        assert (arrays["robust"] == row["value"]).all()
        assert np.array_equal(arrays["noise"], np.random.default_rng(row["value"]).random(20_000))
    return {row["value"] for row in rows}


@pytest.mark.filterwarnings("error")
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
from robustbench_local.errors import StoreError
from robustbench_local.store import Store
folder, what = Path(sys.argv[1]), sys.argv[2]
mount = lambda *words: subprocess.run(["mount", *words, str(folder)], check=True)
mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
store = Store(folder)
store.check_writable()
store.write("before", {"status": "ok"}, {"robust": np.arange(3)})
if what == "full":
    big = np.random.default_rng(0).random(100_000)
    actions = [lambda: store.write("after", {"status": "ok"}, {"x_adv": big})]
else:
    mount("-o", "remount,ro")
    actions = [store.check_writable, lambda: store.write("after", {"status": "ok"})]
for action in actions:
    try:
        action()
    except StoreError as error:
        print(error)
assert [row["key"] for row in store.rows()] == ["before"], store.rows()
assert store.arrays("before")["robust"].tolist() == [0, 1, 2]
assert not list((folder / "rows").glob(".*")), list((folder / "rows").iterdir())
if what == "full":
    store.write("after", {"status": "ok"})
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
            store.write("b", OK)
    assert [row["key"] for row in store.rows()] == ["a"]
    assert not list((tmp_path / "rows").glob(".*"))


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="results"):
        Store(tmp_path / "results").check_writable()
