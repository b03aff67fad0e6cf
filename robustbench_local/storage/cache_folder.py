"""Where files that can be made again are kept: one cache folder, by the convention of the platform."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from robustbench_local.core.errors import DataError, StoreError

CACHE_VARIABLE = "ROBUSTBENCH_LOCAL_CACHE"


def cache_folder() -> Path:
    """The folder of this package's cache; nothing is created.

    ROBUSTBENCH_LOCAL_CACHE if set; otherwise `robustbench_local` in XDG_CACHE_HOME or ~/.cache (Linux),
    ~/Library/Caches (macOS), LOCALAPPDATA (Windows).
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else _platform_cache() / "robustbench_local"


@contextlib.contextmanager
def refusal_explained() -> Iterator[None]:
    """Makes a DataError that says what to do of an error of the disk: full, read-only, gone."""
    try:
        yield
    except (OSError, StoreError) as error:
        raise DataError(
            f"cannot write to the cache {cache_folder()}: {error}. "
            f"Free some space, or name another folder by the environment variable {CACHE_VARIABLE}"
        ) from error


def _platform_cache() -> Path:
    match platform.system():
        case "Darwin":
            return Path.home() / "Library" / "Caches"
        case "Windows":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        case _:
            named = os.environ.get("XDG_CACHE_HOME", "")
            # The XDG specification: a relative path is invalid and must be ignored.
            return Path(named) if os.path.isabs(named) else Path.home() / ".cache"
