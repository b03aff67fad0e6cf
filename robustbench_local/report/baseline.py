"""The baseline of a grid's corruption errors, kept beside its rows, of which it is no part.

Whoever reports on them anew compares with the same defense.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

from robustbench_local.core.escaping import shown
from robustbench_local.storage.files import whole_file

NAME = "grid.json"


def keep(folder: Path, baseline: str | None) -> None:
    """Write FOLDER/grid.json where there is something to say. StoreError as in whole_file."""
    path = folder / NAME
    if baseline is None and not path.exists():
        return
    with whole_file(path) as file:
        file.write(json.dumps({"baseline": baseline}).encode() + b"\n")


def kept(folders: Iterable[Path]) -> str | None:
    """The one that these folders agree on; None where none says any, or they differ."""
    found = {name for folder in folders if (name := _read(folder / NAME)) is not None}
    return found.pop() if len(found) == 1 else None


def _read(path: Path) -> str | None:
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["baseline"]
        if name is None or isinstance(name, str):
            return name
        fault = f"its baseline is {name!r:.40}, which is no name"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    warnings.warn(shown(f"{path.absolute()} counts as missing: {fault}", "terminal"), stacklevel=2)
    return None
