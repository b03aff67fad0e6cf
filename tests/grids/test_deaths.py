"""When a job is given up: after three processes, not counting those that were ended from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_local.grids.deaths import Death, Deaths, in_words

CRASH = Death("SIGSEGV", "Fatal Python error")


def test_a_job_is_given_up_after_three(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path)
    for count in range(3):
        assert deaths.too_many("a") == [] and len(deaths.of("a")) == count
        deaths.note("a", CRASH)
    assert deaths.too_many("a") == [CRASH] * 3 and deaths.too_many("ab") == []
    assert (
        in_words(deaths.of("a")) == "3 workers died of it, the last one of SIGSEGV. Its last words: Fatal Python error"
    )
    deaths.forget("a")
    assert deaths.of("a") == []


def test_a_timeout_is_enough(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path)
    deaths.note("a", Death("timeout=5s", timed_out=True))
    assert in_words(deaths.too_many("a")) == "it took longer than timeout=5s"


def test_kills_that_a_job_came_through_were_from_outside(tmp_path: Path) -> None:
    """Somebody kills at random: each job that is done after all allows every other one kill more."""
    deaths = Deaths(tmp_path)
    for _ in range(2):
        deaths.note("fine", Death("SIGKILL"))
    deaths.came_through("fine")
    for count in range(5):
        assert deaths.too_many("a") == [], count
        deaths.note("a", Death("SIGKILL"))
    assert len(deaths.too_many("a")) == 5


def test_kills_of_processes_that_did_nothing_were_from_outside(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path)
    deaths.note_idle()
    for count in range(4):
        assert deaths.too_many("a") == [], count
        deaths.note("a", Death("SIGKILL"))
    assert len(deaths.too_many("a")) == 4 and deaths.counts() == {"a": 4}


def test_deaths_that_two_note_at_once_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sees what the other one notes."""
    one, other = Deaths(tmp_path), Deaths(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Deaths, "_files", lambda *_: [])
        one.note("a", CRASH)
        other.note("a", CRASH)
    assert one.of("a") == [CRASH] * 2


@pytest.mark.parametrize("content", [b"", b"null", b"{", b'{"what": 1}', b"[3]"])
def test_a_damaged_one_is_no_death_that_anybody_knows_of(tmp_path: Path, content: bytes) -> None:
    deaths = Deaths(tmp_path)
    deaths.note("a", CRASH)
    next(tmp_path.glob("a.*")).write_bytes(content)
    assert deaths.of("a") == []
    deaths.came_through("a")
    assert deaths.counts() == {}
