"""What an archive of a model may be before anything of it is read: of a size that was meant."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from robustbench_local.core.errors import ModelError

_MOST, _RATIO = 1 << 30, 20  # bytes of an unpacked archive, and times its size: beyond both nobody meant it
Program = Literal["torch.export", "TorchScript"]


def check_archive(path: Path) -> None:
    """ModelError where a zip archive unpacks to far more than its size."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_MOST, _RATIO * path.stat().st_size):
        raise ModelError(f"{path} unpacks to {unpacked:,} bytes, {path.stat().st_size:,} packed: a bomb, or damaged")


def program_in(path: Path) -> Program | None:
    """Which kind of whole program a file is; None where it is none, such as weights alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    if any("/models/" in name or "serialized_exported_program" in name for name in names):
        return "torch.export"
    return "TorchScript" if any("/code/" in name for name in names) else None
