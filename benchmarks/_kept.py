"""Rows of a benchmark, a line each, written as they come: what was measured is not measured again."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

from robustbench_local.storage.files import whole_file

Row = dict[str, Any]

RENAMED = {"stood": "robust", "standing": "robust_accuracy"}  # as older files call them


def kept(file: Path) -> list[Row]:
    """The rows of a file, those that were packed first; half a line, of a run that was killed, is no row."""
    packed = lzma.decompress(packed_of(file).read_bytes()).decode() if packed_of(file).exists() else ""
    loose = file.read_text(encoding="utf-8") if file.exists() else ""
    rows = []
    for line in (packed + loose).splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.append({RENAMED.get(name, name): value for name, value in row.items()})
    return rows


def packed_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.xz")


def pack(file: Path) -> None:
    """Its rows in a compressed file beside it, in place of the file: many rows are committed so."""
    if file.exists():
        lines = "".join(f"{json.dumps(row)}\n" for row in kept(file))
        with whole_file(packed_of(file)) as out:
            out.write(lzma.compress(lines.encode(), preset=9))
        file.unlink()


def keep(file: Path, row: Row) -> None:
    torn = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    with file.open("a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(row) + "\n")
        out.flush()
        os.fsync(out.fileno())
