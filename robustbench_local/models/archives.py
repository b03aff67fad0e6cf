"""What an archive of a model may be before anything of it is read: of a size that was meant."""

from __future__ import annotations

import zipfile
from pathlib import Path

from robustbench_local.core.errors import ModelError

_MOST, _RATIO = 1 << 30, 20  # bytes of an unpacked archive, and times its size: beyond both nobody meant it


def check_archive(path: Path) -> None:
    """ModelError where a zip archive unpacks to far more than its size."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_MOST, _RATIO * path.stat().st_size):
        raise ModelError(f"{path} unpacks to {unpacked:,} bytes, {path.stat().st_size:,} packed: a bomb, or damaged")
