"""What ended the processes that worked on a job: kept beside the claims, until the job is done.

A job that ended three processes is not tried again, unless asked for. But processes are ended from outside as well, by
a person or by a machine short of memory. Where a job came through after its process had been ended, or the process did
nothing then, that was such a case; and with each of those, every job is allowed one more.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from robustbench_local.storage.files import whole_file

MOST = 3


@dataclass(frozen=True)
class Death:
    """how: "SIGSEGV", "exit code 7". last_words: what the process said at the end. timed_out: ended for its time."""

    how: str
    last_words: str = ""
    timed_out: bool = False


class Deaths:
    """In a folder; job: a name that can be a file's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, job: str, death: Death) -> None:
        """Beside those of before, and of whoever else notes one now."""
        place = f"{len(self._files(job)):03}-{secrets.token_hex(4)}"
        with whole_file(self.folder / f"{job}.{place}.json") as file:
            file.write(json.dumps(asdict(death)).encode())

    def note_idle(self) -> None:
        """A process was ended that was at no job."""
        with whole_file(self.folder / f"idle.{secrets.token_hex(4)}.outside") as file:
            file.write(b"{}")

    def counts(self) -> Counter[str]:
        """How many there are of each job that is not done."""
        return Counter(_job(path) for path in self._listed(".json"))

    def of(self, job: str) -> list[Death]:
        found = []
        for path in self._files(job):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(Death(**json.loads(path.read_bytes())))
        return found

    def too_many(self, job: str) -> list[Death]:
        """Those for which it is given up; none where it may be tried (again)."""
        found = self.of(job)
        given_up = len(found) >= MOST + self._from_outside() or any(each.timed_out for each in found)
        return found if given_up else []

    def came_through(self, job: str) -> None:
        """It was done after all."""
        for path in self._files(job):
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".outside"))

    def forget(self, job: str) -> None:
        """It is to be tried as if nothing had happened."""
        for path in self._files(job):
            with contextlib.suppress(OSError):
                path.unlink()

    def _files(self, job: str) -> list[Path]:
        return sorted(path for path in self._listed(".json") if _job(path) == job)

    def _from_outside(self) -> int:
        return len(self._listed(".outside"))

    def _listed(self, suffix: str) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == suffix and path.name[0] != "."]
        except OSError:
            return []


def _job(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]


def in_words(deaths: list[Death]) -> str:
    """What a row says of them."""
    last = deaths[-1]
    if last.timed_out:
        return f"it took longer than {last.how}"
    words = f". Its last words: {last.last_words}" if last.last_words else ""
    return f"{len(deaths)} workers died of it, the last one of {last.how}{words}"
