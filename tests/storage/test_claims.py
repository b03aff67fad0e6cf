"""Claims: one process at a time, those that are gone are told from those that are slow, and no clock is believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.storage import claims
from robustbench_local.storage.claims import Claims
from robustbench_local.storage.owner import Owner, is_stopped, this_process
from robustbench_local.storage.sealing import SCHEMA, sealed, written

TAKER = """
import sys, time
from pathlib import Path
from robustbench_local.storage.claims import Claims
print(Claims(Path(sys.argv[1])).take("cell"), flush=True)
time.sleep(60)
"""


def taker(folder: Path) -> subprocess.Popen[str]:
    """Another process, which took the claim."""
    process = subprocess.Popen([sys.executable, "-c", TAKER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


def elsewhere(folder: Path, name: str = "cell") -> Owner:
    """A claim of a process on another machine, which says something."""
    owner = replace(this_process(), name="1-elsewhere", host="another machine")
    said = {"name": name, "turn": 0, "owner": owner.__dict__, "since": time.time(), "about": {}}
    for kind in ("claims", "pulses"):
        (folder / kind).mkdir(exist_ok=True, parents=True)
    write(folder / "claims" / f"{name}.0.json", said)
    beat(folder, owner, 0)
    return owner


def beat(folder: Path, owner: Owner, count: int) -> None:
    pulse = {"owner": owner.__dict__, "doing": "cell", "what": "", "share": 0.0, "since": 0.0, "count": count}
    write(folder / "pulses" / f"{owner.name}.json", pulse)


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(written(sealed({"schema": SCHEMA, **content})))


def test_a_claim_is_taken_once_and_again_after_its_release(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("cell", label="pgd") and not second.take("cell") and second.take("other")
    holder = second.holder("cell")
    assert holder is not None and holder.owner == this_process() and holder.about == {"label": "pgd"}
    first.release("cell")
    assert second.holder("cell") is None and second.take("cell")


def test_of_many_who_ask_at_once_one_gets_it(tmp_path: Path) -> None:
    for turn in range(20):
        got: list[bool] = []

        def ask(name: str = f"cell{turn}", answers: list[bool] = got) -> None:
            answers.append(Claims(tmp_path).take(name))

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert sorted(got) == [False] * 7 + [True]


def test_what_a_killed_process_had_is_taken_over_at_once_by_one(tmp_path: Path) -> None:
    process = taker(tmp_path)
    own = [Claims(tmp_path) for _ in range(4)]
    assert not own[0].take("cell") and not own[0].is_left("cell")
    process.kill()
    process.wait()
    assert own[0].is_left("cell")
    assert [each.take("cell") for each in own] == [True, False, False, False]
    own[0].release("cell")
    assert not list((tmp_path / "claims").glob("*.json"))


def test_a_process_that_was_killed_and_not_waited_for_is_gone(tmp_path: Path) -> None:
    process = taker(tmp_path)
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert Claims(tmp_path).take("cell")
    process.wait()


def test_a_stopped_process_is_slow_and_gone_when_it_does_not_go_on_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, now, mine = taker(tmp_path), [100.0], Claims(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    while not is_stopped(process.pid):
        time.sleep(0.01)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    try:
        assert not mine.take("cell")
        now[0] += claims.PATIENCE - 1
        assert not mine.take("cell")
        now[0] += 2
        assert mine.take("cell")
    finally:
        process.kill()
        process.wait()


def test_another_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    assert mine.take("cell")
    path = tmp_path / "claims" / "cell.0.json"
    held = json.loads(path.read_text())
    write(path, {**held, "owner": {**held["owner"], "started": "1"}})
    assert Claims(tmp_path).take("cell")


def test_a_machine_that_was_started_anew_has_lost_its_processes(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    assert mine.take("cell")
    path = tmp_path / "claims" / "cell.0.json"
    held = json.loads(path.read_text())
    write(path, {**held, "owner": {**held["owner"], "boot": "before"}})
    assert Claims(tmp_path).take("cell")


def test_on_another_machine_an_owner_is_gone_when_its_pulse_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, now, mine = elsewhere(tmp_path), [100.0], Claims(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for count in range(1, 6):  # slow, but it says something now and then
        assert not mine.take("cell")
        now[0] += claims.PATIENCE - 1
        beat(tmp_path, owner, count)
    assert not mine.take("cell")
    now[0] += claims.PATIENCE - 1
    assert not mine.take("cell")
    now[0] += 2
    assert mine.take("cell")


@pytest.mark.parametrize("jump", [-1e7, 1e7])
def test_clocks_that_jump_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    elsewhere(tmp_path)
    mine = Claims(tmp_path)
    assert not mine.take("cell")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert not mine.take("cell")


def cut_short(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def of_another_process(whole: bytes) -> bytes:
    """Still JSON, and of a process that there is: only its checksum tells."""
    return whole.replace(str(os.getpid()).encode(), b"1")


@pytest.mark.parametrize("damage", [cut_short, of_another_process, lambda _: b"", lambda _: b"null"])
def test_a_damaged_claim_is_nobodys_but_perhaps_still_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    now, mine = [100.0], Claims(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert Claims(tmp_path).take("cell")
    path = tmp_path / "claims" / "cell.0.json"
    path.write_bytes(damage(path.read_bytes()))
    assert not mine.take("cell")
    now[0] += claims.BEAT + 1
    assert mine.take("cell")


def test_a_damaged_pulse_says_nothing(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    mine.says("cell", "pgd")
    for path in (tmp_path / "pulses").iterdir():
        path.write_bytes(path.read_bytes().replace(b"pgd", b"fgsm"))
    assert Claims(tmp_path).pulses() == []
    mine.leave()


def test_what_a_process_said_is_not_taken_for_the_word_of_a_later_one_of_its_number(tmp_path: Path) -> None:
    process = taker(tmp_path)
    process.kill()
    process.wait()
    mine = Claims(tmp_path)
    assert mine.pulse_of(process.pid) is not None, "of what it was at its supervisor still learns"
    elsewhere(tmp_path, "other")
    mine.forget(process.pid)
    assert mine.pulse_of(process.pid) is None
    assert [pulse.owner.host for pulse in mine.pulses()] == ["another machine"]


def test_a_pulse_says_what_a_process_does_at_once(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    mine.says("cell", "pgd", 0.0)
    pulse = Claims(tmp_path).pulse_of(os.getpid())
    assert pulse is not None and (pulse.doing, pulse.what) == ("cell", "pgd")
    mine.leave()
    assert Claims(tmp_path).pulse_of(os.getpid()) is None
