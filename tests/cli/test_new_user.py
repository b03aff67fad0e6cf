"""What a new user types, on terminals of 80 and 60 columns, without colours, and through a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pexpect
import pytest

from robustbench_local.storage.cache_folder import CACHE_VARIABLE

ROOT = Path(__file__).parents[2]
WIDE = 250
MODELS = """
from torch import nn

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def two_layers():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
"""
RUN = [
    *("run", "grid=quickstart", "data=mnist", "n=8", "models=[usertoys:linear,usertoys:two_layers]"),
    *(
        "defenses=[none,jpeg]",
        "threats=[linf:0.1]",
        "attacks=[fgsm,{pgd:{steps:2}}]",
        "device=cpu",
        "allow_chance=true",
    ),
]
TINY = ["n=8", "device=cpu", "allow_chance=true"]
TYPED: list[tuple[list[str], int]] = [
    (["run", "grid=quickstrat"], 2),
    ([*RUN, "dry_run=true"], 0),
    (RUN, 0),
    ([*RUN, "attcks=[fgsm]"], 2),
    (["status", "results/quickstart"], 0),
    (["list", "attacks", "pgd"], 0),
    (["compare", "results/quickstart", "results/quickstart"], 0),
    (["metrics", "results/quickstart"], 0),
    (["evaluate", "usertoys.py:linear", "--data", "mnist", "--threat", "linf:0.1", "--suite", "quick", *TINY], 0),
    (["site", "results", "--into", "public"], 0),
    (["report", "results/nowhere"], 2),
]
SCRIPT = f"""
import sys, torch
from robustbench_local.cli.main import main
torch.manual_seed(0)
for words, code in {TYPED!r}:
    print("$", words[0], flush=True)
    found = main(words)
    assert found == code, (words, found)
"""
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9])")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])[;m]")
# said only where a table has lost columns
NARROW = {"No", "room", "for", "all", "has", "FILE", "out", "metrics", "md"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def environment(home: Path, **more: str) -> dict[str, str]:
    without = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    known = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TERM": "xterm-256color"}
    return without | known | {CACHE_VARIABLE: str(home / "cache"), "MPLCONFIGDIR": str(home / "mpl")} | more


def folder(home: Path, name: str) -> Path:
    made = home / name
    made.mkdir()
    (made / "usertoys.py").write_text(MODELS)
    return made


@cache
def on_a_terminal(home: Path, columns: int, no_color: bool) -> str:
    """All that a terminal is sent."""
    where = folder(home, f"tty{columns}{no_color}")
    typed = pexpect.spawn(
        sys.executable,
        ["-c", SCRIPT],
        cwd=str(where),
        env=environment(home, **({"NO_COLOR": "1"} if no_color else {})),
        dimensions=(40, columns),
        encoding="utf-8",
        timeout=240,
    )
    typed.expect(pexpect.EOF)
    typed.close()
    assert typed.exitstatus == 0, typed.before
    return str(typed.before).replace(str(where), "/home")


@cache
def through_a_pipe(home: Path, columns: int | None) -> tuple[str, str]:
    where = folder(home, f"pipe{columns}")
    known = environment(home, **({} if columns is None else {"COLUMNS": str(columns)}))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=where, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(where), "/home"), done.stderr.replace(str(where), "/home")


def lines(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", ESCAPE.sub("", text)) if line.strip()]


def words(text: str) -> set[str]:
    """Of letters; what ends in an ellipsis was cut where everybody sees it."""
    whole = (each for line in lines(text) for each in line.split() if "…" not in each)
    return {word for each in whole for word in re.findall(r"[A-Za-z]{2,}", each)}


def too_wide(text: str, columns: int) -> list[str]:
    return [line for line in lines(text) if len(line.rstrip()) > columns]


def broken(text: str, wide: str) -> set[str]:
    """Words that are none where there is room."""
    return words(text) - words(wide) - NARROW


def test_a_line_too_wide_and_a_broken_word_are_found() -> None:
    assert too_wide("a\x1b[1mb\x1b[0mc\r\nabcd", 3) == ["abcd"]
    assert broken("adversa\nrial", "adversarial") == {"adversa", "rial"} and not broken("one cut…", "one")
    assert COLOUR.search("\x1b[1;31mred\x1b[0m") and COLOUR.search("\x1b[38;5;2mx") and not COLOUR.search("\x1b[1mbold")


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "no_color"), [(80, False), (60, True)])
def test_a_terminal_holds_every_line_and_breaks_no_word(home: Path, columns: int, no_color: bool) -> None:
    text, (wide, said) = on_a_terminal(home, columns, no_color), through_a_pipe(home, WIDE)
    assert too_wide(text, columns) == []
    assert broken(text, wide + said) == set()
    assert bool(COLOUR.search(text)) != no_color
    for word in ("did you mean", "8 of 8 cells done", "steps=40", "leaderboard"):
        assert word in " ".join(ESCAPE.sub("", text).split())


@pytest.mark.slow
def test_a_pipe_has_80_columns_and_no_escape(home: Path) -> None:
    (out, err), (wide, said) = through_a_pipe(home, None), through_a_pipe(home, WIDE)
    assert too_wide(out, 80) == [] and broken(out, wide) == set()
    assert "\x1b" not in out + err and words(err) == words(said)
    assert max(map(len, wide.splitlines())) > 100  # as COLUMNS asks
