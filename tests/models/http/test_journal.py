"""The journal: answers in their order, whole after any kill, damage named, a budget that all processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.core.errors import ModelError, StoreError
from robustbench_local.models.http.journal import Journal, image_key, journal_file

A, B = (np.array([values], np.float32) for values in ([1.5, -2.0], [0.1, 1e-30]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints" / "net.jsonl"


def filled(path: Path) -> Journal:
    """x answered A and then B, y answered B."""
    journal = Journal(path, "net 1")
    for key, answer in (("x", A), ("y", B), ("x", B)):
        journal.reserve(1)
        journal.keep([key], answer)
    return journal


def told(journal: Journal, key: str) -> list[list[float]]:
    """All answers to an image, in their order."""
    found, place = [], 0
    while (answer := journal.answer(key, place)) is not None:
        found.append(answer.tolist())
        place += 1
    return found


def test_an_image_has_its_answers_in_their_order_to_the_last_bit(path: Path) -> None:
    for journal in (filled(path), Journal(path, "net 1")):  # itself, and a later process
        assert told(journal, "x") == [A[0].tolist(), B[0].tolist()]
        assert told(journal, "y") == [B[0].tolist()] and told(journal, "z") == []
        assert len(journal) == 3 and journal.spent == 3


def test_a_record_that_was_cut_short_is_left_out_wherever_the_writer_died(path: Path) -> None:
    filled(path)
    whole = path.read_bytes()
    last = len(whole) - whole.rstrip(b"\n").rfind(b"\n") - 1
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        with pytest.warns(UserWarning, match="cut short"):
            journal = Journal(path, "net 1")
        assert told(journal, "x") == [A[0].tolist()] and told(journal, "y") == [B[0].tolist()]
        journal.keep(["x"], B)  # what is written next begins a line of its own
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert told(Journal(path, "net 1"), "x") == [A[0].tolist(), B[0].tolist()]


def test_damage_in_the_middle_is_named_and_costs_that_record_alone(path: Path) -> None:
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    (place,) = [k for k, line in enumerate(lines) if b'"image":"y"' in line]
    for changed in (lines[place].replace(b'"y"', b'"x"'), b"\n", b"\xff\x00 {}\n", lines[place].replace(b"a", b"b", 1)):
        path.write_bytes(b"".join([*lines[:place], changed, *lines[place + 1 :]]))
        with pytest.warns(UserWarning, match=f"1 damaged records, the first at byte {sum(map(len, lines[:place]))}"):
            journal = Journal(path, "net 1")
        assert told(journal, "x") == [A[0].tolist(), B[0].tolist()] and told(journal, "y") == []


def test_the_budget_counts_what_was_sent_and_not_refused(path: Path) -> None:
    journal = Journal(path, "net 1", most=10)
    journal.reserve(6)
    with pytest.raises(ModelError, match=r"budget of 10 queries.*6 images were asked about, and 5 more"):
        journal.reserve(5)
    journal.release(6)
    journal.reserve(10)  # sent, and its answer lost: paid for
    for later in (Journal(path, "net 1", most=10), journal):
        with pytest.raises(ModelError, match="is spent"):
            later.reserve(1)
    Journal(path, "net 1", most=11).reserve(1)


def test_several_at_once_share_answers_and_budget(path: Path, tmp_path: Path) -> None:
    """Processes and threads write at once: every answer is there, and not one query more is paid."""
    code = (
        "import sys, time, numpy as np; from pathlib import Path\n"
        "from robustbench_local.core.errors import ModelError\n"
        "from robustbench_local.models.http.journal import Journal\n"
        "path, name, go = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])\n"
        "journal = Journal(path, 'net 1', most=300); go.with_name(name).touch()\n"
        "while not go.exists(): time.sleep(0.001)\n"
        "for k in range(1000):\n"
        "    try: journal.reserve(1)\n"
        "    except ModelError: break\n"
        "    journal.keep([f'{name}{k}'], np.array([[k, 0.5]], np.float32))\n"
    )
    go = tmp_path / "go"
    others = [subprocess.Popen([sys.executable, "-c", code, str(path), name, str(go)]) for name in "pqr"]
    while not all((tmp_path / name).exists() for name in "pqr"):
        assert all(other.poll() is None for other in others)
        time.sleep(0.01)
    mine = Journal(path, "net 1", most=300)
    mine.reserve(40)  # or the others, where they are quick, leave nothing

    def work(name: str) -> None:
        for k in range(20):
            mine.keep([f"{name}{k}"], np.array([[k, 0.5]], np.float32))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    go.touch()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal = Journal(path, "net 1", most=300)
    assert journal.spent == 300 == len(journal)
    assert all(told(journal, f"{name}{k}") == [[k, 0.5]] for name in "ab" for k in range(20))


def test_a_journal_that_cannot_be_written_or_was_removed_stops_everything(path: Path, tmp_path: Path) -> None:
    journal = filled(path)
    path.unlink()
    with pytest.raises(StoreError, match="removed or cut"):
        journal.keep(["x"], A)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Journal(tmp_path / "file" / "net.jsonl", "net 1")


def test_keys_tell_images_apart_and_files_models(cache: Path) -> None:
    zeros: np.ndarray[Any, Any] = np.zeros((1, 2, 2), np.float32)
    others: list[np.ndarray[Any, Any]] = [
        zeros.astype(np.float16),
        zeros.reshape(1, 4, 1),
        zeros + 1e-7,
        -zeros,
        np.zeros((1, 2, 2), np.int32),
    ]
    assert len({image_key(image) for image in [zeros, *others]}) == 6
    assert image_key(zeros) == image_key(np.zeros((1, 2, 2), np.float32))
    assert journal_file("net 1") != journal_file("net 2") and cache in journal_file("net 1").parents
