"""Rows of a benchmark, a line each, written as they come: what was measured is not measured again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]

RENAMED = {"stood": "robust", "standing": "robust_accuracy"}  # as older files call them


def kept(file: Path) -> list[Row]:
    """The rows of a file; half a line, of a run that was killed, is no row."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.append({RENAMED.get(name, name): value for name, value in row.items()})
    return rows


def keep(file: Path, row: Row) -> None:
    torn = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    with file.open("a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(row) + "\n")
        out.flush()
        os.fsync(out.fileno())
