"""Flags that every command has, wherever they stand; JSON; exit codes in one table."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from robustbench_local.cli import output
from robustbench_local.cli.main import main, parser
from robustbench_local.cli.status_text import show
from robustbench_local.core import streams
from robustbench_local.grids.status import Status
from tests.helpers.rows import a_row, stored

ROOT = Path(__file__).parents[2]


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_the_common_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"-q", "-v", "--debug", "--version"} <= {*commands()[name]._option_string_actions}
    with pytest.raises(SystemExit) as ended:
        main([name, "--version"])
    assert ended.value.code == 0 and "robustbench_local" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["-q"], ["--debug"], ["-v"]])
@pytest.mark.parametrize("before", [True, False])
def test_flags_stand_before_a_command_or_after_it(flags: list[str], before: bool) -> None:
    words = ["list", "attacks", "pgd"]
    seen = parser().parse_args([*flags, *words] if before else [*words, *flags])
    given = {"-q": seen.quiet, "-v": seen.verbose, "--debug": seen.debug}
    assert [flag for flag, there in given.items() if there] == flags


def test_quiet_leaves_errors_and_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, a_row([1, 0, 0, 1]))
    (tmp_path / "rows" / "broken.json").write_text("{}")
    assert main(["-q", "report", str(tmp_path)]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == "" and "pgd" in quiet.out
    assert not streams.QUIET.get()
    assert main(["run", "grid=quickstrat", "-q"]) == 2 and "did you mean" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--debug"]):
        assert main(["run", "grid=quickstrat", *flags]) == 2
        assert ("Traceback" in capsys.readouterr().err) == bool(flags)


def test_json_is_all_of_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, bits in (("before", [1, 1, 0, 1]), ("after", [1, 0, 0, 1])):
        stored(tmp_path / name, a_row(bits))
    found = {}
    for words in (
        ["list", "attacks", "pgd", "--json"],
        ["status", str(tmp_path / "before"), "--json"],
        ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"],
    ):
        main(words)
        found[words[0]] = json.loads(capsys.readouterr().out)
    (pgd,) = found["list"]
    steps = next(each for each in pgd["settings"] if each["name"] == "steps")
    assert steps["default"] == "40" and steps["must_be"] == "a whole number" and "restart" in steps["about"]
    assert found["compare"]["changes"][0]["pair"]["only_first"] == 1
    assert "cells" in found["status"]


def test_list_shows_every_setting_of_what_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attacks", "pgd", "square"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "steps=40 a whole number: how many each restart takes" in text and "square" in text and "apgd" not in text
    assert main(["list", "attacks", "pgdd"]) == 2 and 'did you mean "pgd"?' in capsys.readouterr().err


def test_exit_codes_are_in_one_table_in_help_and_docs(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("OK", "FAILED", "WRONG", "SUSPICIOUS", "BROKEN", "LOST", "INTERRUPTED", "CUT_SHORT")
    codes = [getattr(output, name) for name in names]
    assert [*output.EXITS] == sorted({*codes}) == codes
    with pytest.raises(SystemExit):
        main(["--help"])
    helped = " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    listed = {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)}
    assert listed == output.EXITS
    assert all(f"{code} {text}" in helped for code, text in output.EXITS.items())


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", ["", *sorted(commands())])
def test_help_is_as_wide_as_the_terminal(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([name, "--help"] if name else ["--help"])
    wide = [line for line in capsys.readouterr().out.splitlines() if len(line) > columns]
    assert [line for line in wide if " " in line.strip()] == []  # a word that is longer stands alone


def test_verbose_status_names_every_cell_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(cells=30, done=0, failed=(), left=tuple(f"cell {place}" for place in range(30)))
    for every in (False, True):
        show(status, Path("results/mine"), as_json=False, every=every)
        shown = capsys.readouterr().out
        assert ("cell 29" in shown) == every and ("and 20 more" in shown) == (not every)
