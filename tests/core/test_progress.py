"""What is at work, on a terminal of 80 and of 60 columns, in a file, and under -q."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from robustbench_local.core import streams
from robustbench_local.core.progress import Part, Terminal

LONG = "3/12 cifar10 zoo:cifar10/none adversarial_training | pgd(steps=40, loss=ce) linf:8/255 seed 0"


def drawn(columns: int) -> list[str]:
    """The lines of the bars, as a terminal shows them."""
    shown = Terminal()
    Part(shown, LONG, 0.25, 0.5).advance("a step", 0.5)
    shown.lane(1).advance(LONG, 0.25)
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    console.print(shown._bar.get_renderable())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_two_lines_for_the_whole_and_one_for_a_worker(columns: int) -> None:
    what, bar, lane = drawn(columns)
    assert max(map(len, (what, bar, lane))) <= columns
    assert what.startswith("3/12 cifar10") and (what.rstrip().endswith("…") or LONG in what)
    assert "50 %" in bar and "0:00:00" in bar
    assert lane.startswith("3/12 cifar10") and lane.rstrip().endswith("25 %")


def test_lines_are_folded_on_a_terminal_and_whole_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stderr", out)
        shown = Terminal()
        shown.console = Console(file=out, width=60, force_terminal=terminal, color_system=None)
        shown.line(LONG)
        lines = out.getvalue().splitlines()
        assert (max(map(len, lines)) <= 60) == terminal and " ".join(" ".join(lines).split()) == LONG


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = streams.QUIET.set(True)
    try:
        with Terminal() as shown:
            shown.line("clean 91.2 %")
            shown.block("a table")
            shown.advance("a cell", 0.5)
    finally:
        streams.QUIET.reset(before)
    assert capsys.readouterr().err == ""
    with Terminal() as shown:
        shown.line("clean 91.2 %")
    assert capsys.readouterr().err == "clean 91.2 %\n"
