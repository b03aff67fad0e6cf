"""Which process this is, among all that may share a folder; and whether another one is gone."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process, told apart from a later one of the same number.

    host: its name. boot: of the machine, another one after every start; space: its namespace of process numbers, as
    containers have one each ("" for both where the system does not say). started: in the machine's clock ticks.
    """

    name: str
    host: str
    boot: str
    space: str
    process: int
    started: str

    def is_gone(self) -> bool | None:
        """Whether it has ended; None where that cannot be seen from here, as of a process on another machine, or of one
        that is stopped and may never go on.
        """
        here = this_process()
        if self.host != here.host or self.space != here.space:
            return None
        if self.boot != here.boot:
            return True  # the machine was started anew since
        if os.name == "nt":
            return None  # there, asking a process whether it lives would end it
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it lives, and is another user's
        if _started(self.process) != self.started:
            return True
        return None if is_stopped(self.process) else False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@cache
def _known(process: int) -> Owner:
    boot = _text("/proc/sys/kernel/random/boot_id")
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    host = socket.gethostname()
    name = f"{process}-{secrets.token_hex(6)}"
    return Owner(name, host, boot, space, process, _started(process))


def this_process() -> Owner:
    """Known by its number, since a fork is another process."""
    return _known(os.getpid())


def is_stopped(process: int) -> bool:
    """Whether a process of this machine was stopped (SIGSTOP), and not continued."""
    return _stat(process)[:1] == ["T"]


def _started(process: int) -> str:
    """ "" where the system does not say, or a process that ended and was not waited for."""
    fields = _stat(process)
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _stat(process: int) -> list[str]:
    """From its state on; the name before that may hold anything."""
    return _text(f"/proc/{process}/stat").rpartition(")")[2].split()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
