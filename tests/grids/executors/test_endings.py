"""How a process ended, in words."""

from __future__ import annotations

from pathlib import Path

from robustbench_local.grids.executors.endings import how_it_ended, last_words, text

CRASHED = """\
Loading
Fatal Python error: Segmentation fault

Thread 0x00007f (most recent call first):
  File "threading.py", line 331 in wait

Current thread 0x00007e (most recent call first):
  File "rogue.py", line 7 in fault
  File "bench.py", line 3 in do

Extension modules: numpy
"""


def test_signals_and_exit_codes_have_names() -> None:
    assert [how_it_ended(code) for code in (-9, -11, 7, -99)] == ["SIGKILL", "SIGSEGV", "exit code 7", "signal 99"]


def test_of_a_crash_it_says_where_the_thread_was_that_crashed(tmp_path: Path) -> None:
    (tmp_path / "err").write_text(CRASHED)
    assert last_words(tmp_path / "err") == (
        'Fatal Python error: Segmentation fault, File "rogue.py", line 7 in fault, File "bench.py", line 3 in do'
    )


def test_otherwise_the_last_line_counts(tmp_path: Path) -> None:
    (tmp_path / "err").write_text("warning: cold\nMemoryError: no room\n\n")
    assert last_words(tmp_path / "err") == "MemoryError: no room"
    assert last_words(tmp_path / "none") == ""


def test_a_file_is_read_from_a_place_or_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("one\ntwo\n")
    assert [text(tmp_path / "out", start) for start in (0, 4, -4, -99)] == [
        "one\ntwo\n",
        "two\n",
        "two\n",
        "one\ntwo\n",
    ]
