"""What a grid's folder holds in the end, but for what clocks and caches change: so two ways to it can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustbench_local.storage.store import Store

_OF_THE_WAY = ("seconds", "checked_forwards", "judged_forwards")  # of a row's results


def outcome(folder: Path) -> dict[str, Any]:
    """{file: what it says}, of every row, audit and table, and of every file that should not be there.

    Rows are bit for bit those of their key, their arrays too; each file of a row is looked at, so that a cell that has
    two is seen.
    """
    store = Store(folder, own=False)
    found: dict[str, Any] = {}
    for path in sorted((folder / "rows").iterdir()):
        row = store.read(path.stem) if path.suffix == ".json" else None
        if row is not None:
            results = row.get("results", {})
            found[f"rows/{path.name}"] = {
                "status": row["status"],
                "error": None if row.ok else row.failure,
                "definition": row.definition,
                "arrays": row["arrays"],
                "results": {name: value for name, value in results.items() if name not in _OF_THE_WAY},
            }
        elif not path.name.startswith(".") and not (path.suffix == ".npz" and path.with_suffix(".json").exists()):
            found[f"rows/{path.name}"] = "is no whole row"
    found |= {f"audits/{name}": {**record, "checksum": ""} for name, record in store.audits().items()}
    found["table.md"] = (folder / "table.md").read_text()
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """In words, one a file; none where both are the same."""
    lost = [f"{name} is lost" for name in sorted(expected.keys() - found.keys())]
    more = [f"{name} is there and should not be" for name in sorted(found.keys() - expected.keys())]
    other = [
        f"{name} says something else: {_first(expected[name], found[name])}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    return lost + more + other


def _first(expected: Any, found: Any) -> str:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                return f"{key}: {_first(expected.get(key), found.get(key))}"
    return f"{json.dumps(found)[:300]}, not {json.dumps(expected)[:300]}"
