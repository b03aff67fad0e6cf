"""Which files and connections somebody's code opens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Watch:
    """What is opened and connected to while `on`: files that are written, or younger than the audit."""

    def __init__(self, since: float, spared: str) -> None:
        self.on, self.since, self.spared = False, since, spared
        self.files: list[str] = []
        self.connections: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, about: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "socket.connect":
            self.connections.append(str(about[1]))
        elif event in ("open", "sqlite3.connect") and isinstance(about[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(about[0]))
            if not path.startswith((self.spared, "/proc/", "/sys/")) and path != os.devnull and self._kept(path, about):
                self.files.append(path)

    def _kept(self, path: str, about: tuple[Any, ...]) -> bool:
        mode, flags = (*about, None, None)[1:3]
        if any(letter in str(mode or "") for letter in "wax+") or int(flags or 0) & (os.O_WRONLY | os.O_RDWR):
            return True
        return os.path.exists(path) and os.stat(path).st_mtime >= self.since

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False
