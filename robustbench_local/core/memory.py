"""How much memory there is, and how much a process holds; None where the system does not say."""

from __future__ import annotations

import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def held_by(process: int) -> int | None:
    """Bytes of memory that a process holds."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def free_and_total() -> tuple[int, int] | None:
    """Bytes that processes may still take, and in all: the machine's, or those of a container that has less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        said = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
        free, total = said["MemAvailable"], said["MemTotal"]
    except (OSError, ValueError, IndexError, KeyError):
        return None
    try:
        most = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        own = most - used + int(cached.get("inactive_file", 0))
        return min(free, own), min(total, most)
    except (OSError, ValueError):  # no container, or none that limits memory
        return free, total
