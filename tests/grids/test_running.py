"""What workers know of each other: what is damaged is found out again, and never believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_local.grids.running import Planned, Running
from robustbench_local.grids.status import watch


def emptied(_: bytes) -> bytes:
    return b""


def cut_short(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def another(whole: bytes) -> bytes:
    """Still JSON, and says something else."""
    return whole.replace(b"row", b"raw").replace(b"pgd", b"cw")


DAMAGES = [emptied, cut_short, another, lambda _: b"null", lambda _: b'{"keys": 7, "cells": 7}']


def running(folder: Path, start: str | None = "start") -> Running:
    return Running(folder, "run", start)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_names_of_rows_are_nobodys_knowledge(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    running(tmp_path).know(0, ["row", None])
    assert running(tmp_path).keys(0) == ["row", None]
    (path,) = (tmp_path / "running" / "models").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert running(tmp_path).keys(0) is None and running(tmp_path, None).keys(0) is None
    running(tmp_path).know(0, ["row", None])
    assert running(tmp_path).keys(0) == ["row", None]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_stops_nobody_who_watches(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    running(tmp_path).plan([Planned("pgd", 0, 1.0)])
    assert watch(tmp_path)().cells == 1
    (path,) = (tmp_path / "running").glob("plan-*.json")
    path.write_bytes(damage(path.read_bytes()))
    assert running(tmp_path).planned() == [] and watch(tmp_path)().cells == 0
