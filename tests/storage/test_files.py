"""Files are whole or not there, whatever is removed while they are written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from robustbench_local.storage.files import sweep, whole_file


@pytest.mark.skipif(os.name == "nt", reason="there, what is open cannot be removed")
def test_a_folder_that_is_removed_while_a_file_is_written_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "row.json"
    with whole_file(path) as file:
        file.write(b"first half, ")
        shutil.rmtree(path.parent)
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert list(path.parent.iterdir()) == [path], "and nothing is left beside it"


@pytest.mark.skipif(os.name == "nt", reason="there, what is open cannot be removed")
@pytest.mark.parametrize("days", [-9, 9])
def test_a_clock_that_jumped_has_no_file_swept_away_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """It looks as if it had been left days ago."""
    now = time.time()
    with whole_file(tmp_path / "row.json") as file:
        file.write(b"all of it")
        monkeypatch.setattr(time, "time", lambda: now + days * 86400)
        sweep(tmp_path)
    assert (tmp_path / "row.json").read_bytes() == b"all of it"
