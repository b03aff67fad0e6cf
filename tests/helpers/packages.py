"""Installed packages of somebody else's: what pip leaves beside a module."""

from __future__ import annotations

from pathlib import Path


def installed(folder: Path, name: str, entry_points: str) -> None:
    """Write the metadata of a package of that name, version 1.0, into a folder that is on sys.path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
