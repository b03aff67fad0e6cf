"""Who is at work on what, for processes that share a folder, on one machine or on many.

    FOLDER/claims/NAME.0.json    written once by whoever came first: its owner; removed when the work is done
    FOLDER/claims/NAME.1.json    by whoever took it over, since that owner was gone
    FOLDER/pulses/OWNER.json     what a process is doing, and how far it is, written anew every few seconds

A claim keeps two processes from doing the same at the same time. It is no lock: where one is wrongly taken for gone,
both do the work, and both write the same result. An owner is gone if this machine says so, or, on another machine or
where it was stopped, if its pulse has stood still for minutes of this process's own clock: clocks of machines differ,
and may jump. All files are sealed by a checksum; one that is damaged is nobody's.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from robustbench_local.core.errors import StoreError
from robustbench_local.storage.files import cause
from robustbench_local.storage.owner import Owner, this_process
from robustbench_local.storage.sealing import SCHEMA, sealed, unsealed, written

BEAT = 5.0  # seconds between two pulses
PATIENCE = 180.0  # seconds without a pulse, after which an owner that cannot be asked counts as gone
_CLAIM = re.compile(r"(?P<name>.+)\.(?P<turn>\d+)\.json")


@dataclass(frozen=True)
class Held:
    """A claim that is there. about: what its owner said of it. since: of the owner's clock, seconds since 1970."""

    name: str
    turn: int
    owner: Owner
    since: float
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pulse:
    """What a process said last: the claim it works on, in words, how much of that is done, in [0, 1], and since when,
    by its clock. count: of its pulses, so that each is another one.
    """

    owner: Owner
    doing: str
    what: str
    share: float
    since: float
    count: int = 0


class Claims:
    """The claims in one folder, which is made when the first one is taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[bytes, float]] = {}  # pulses of others, and when they were first so
        self._heart: _Heart | None = None

    def take(self, name: str, **about: Any) -> bool:
        """Whether this process has the claim now: nobody had it, or one that is gone. StoreError of a full disk."""
        turns = self._turns(name)
        before = self._read(name, turns[-1]) if turns else None
        if turns and (before is None or not self.is_gone(before.owner)):
            return False
        turn = turns[-1] + 1 if turns else 0
        me = this_process()
        self._beat()
        if not self._created(name, turn, _sealed(Held(name, turn, me, time.time(), about))):
            return False
        # between the look and the taking, the one before may have been released, and another have begun anew
        if self._turns(name)[-1:] != [turn] or (before and self._read(name, before.turn) != before):
            self._path(name, turn).unlink(missing_ok=True)
            return False
        return True

    def release(self, name: str) -> None:
        """The work is done, or given up; whoever had it before is forgotten too."""
        with contextlib.suppress(OSError):
            for turn in self._turns(name):  # the own one last
                self._path(name, turn).unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, name: str, **about: Any) -> Iterator[bool]:
        """Whether this process has the claim; released when the block ends."""
        mine = self.take(name, **about)
        try:
            yield mine
        finally:
            if mine:
                self.release(name)

    def holder(self, name: str) -> Held | None:
        """Who has the claim, and is not gone."""
        turns = self._turns(name)
        found = self._read(name, turns[-1]) if turns else None
        return None if found is None or self.is_gone(found.owner) else found

    def is_left(self, name: str) -> bool:
        """Whether somebody had the claim who is gone."""
        turns = self._turns(name)
        found = self._read(name, turns[-1]) if turns else None
        return found is not None and self.is_gone(found.owner)

    def says(self, doing: str, what: str, share: float = 0.0) -> None:
        """What this process does from now on, for those who watch; doing: the name of the claim."""
        self._beat().says(doing, what, share)

    def all(self) -> list[Held]:
        """The newest of each name, those of owners that are gone included."""
        newest: dict[str, int] = {}
        for path in self._places():
            if found := _CLAIM.fullmatch(path.name):
                newest[found["name"]] = max(newest.get(found["name"], 0), int(found["turn"]))
        return [held for name, turn in sorted(newest.items()) if (held := self._read(name, turn))]

    def pulse_of(self, process: int) -> Pulse | None:
        """That of a process of this machine, known by its number alone."""
        return next(self._of(process), None)

    def _of(self, process: int) -> Iterator[Pulse]:
        here = this_process()
        for pulse in self.pulses(f"{process}-*.json"):
            if (pulse.owner.host, pulse.owner.boot, pulse.owner.space) == (here.host, here.boot, here.space):
                yield pulse

    def pulses(self, names: str = "*.json") -> list[Pulse]:
        """What all said last who did not leave, whether they are gone or not."""
        found = (_pulse(path) for path in sorted((self.folder / "pulses").glob(names)))
        return [pulse for pulse in found if pulse is not None]

    def is_gone(self, owner: Owner) -> bool:
        """Whether it is: at once where this machine knows, after PATIENCE seconds without a pulse elsewhere. Whoever
        wrote what cannot be read may still be writing it, but not for long.
        """
        gone = owner.is_gone()
        if gone is not None:
            return gone
        try:
            pulse = self._pulse_path(owner).read_bytes()
        except OSError:
            pulse = b""
        now = time.monotonic()
        before, since = self._seen.setdefault(owner.name, (pulse, now))
        if before != pulse:
            self._seen[owner.name] = pulse, now
            return False
        return now - since > (PATIENCE if owner.host else BEAT)

    def forget(self, process: int) -> None:
        """What a process of this machine said last, which is gone: its number may be another one's next."""
        with contextlib.suppress(OSError):
            for pulse in self._of(process):
                self._pulse_path(pulse.owner).unlink(missing_ok=True)

    def leave(self) -> None:
        """This process has nothing to do here any more."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    def _beat(self) -> _Heart:
        if self._heart is None or self._heart.owner != this_process():
            self._heart = _Heart(self.folder / "pulses")
        return self._heart

    def _places(self) -> list[Path]:
        try:
            return list((self.folder / "claims").iterdir())
        except OSError:
            return []

    def _turns(self, name: str) -> list[int]:
        found = (_CLAIM.fullmatch(path.name) for path in self._places())
        return sorted(int(each["turn"]) for each in found if each and each["name"] == name)

    def _pulse_path(self, owner: Owner) -> Path:
        return self.folder / "pulses" / f"{owner.name}.json"

    def _path(self, name: str, turn: int) -> Path:
        return self.folder / "claims" / f"{name}.{turn}.json"

    def _read(self, name: str, turn: int) -> Held | None:
        """None where it is no more; a claim that cannot be read is nobody's."""
        path = self._path(name, turn)
        try:
            return Held(**_unsealed(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, StoreError):
            return Held(name, turn, Owner(path.stem, "", "", "", 0, ""), 0.0)

    def _created(self, name: str, turn: int, content: bytes) -> bool:
        """Whether the claim was written: whole, and by this process first."""
        path = self._path(name, turn)
        draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            try:
                os.link(draft, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links: another may see it before it is whole, and let it be
                with open(path, "xb") as file:
                    file.write(content)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(f"cannot write to {path.parent.absolute()}: {cause(error)}") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def _pulse(path: Path) -> Pulse | None:
    try:
        return Pulse(**_unsealed(path.read_bytes()))
    except (OSError, StoreError):
        return None


def _sealed(what: Held | Pulse) -> bytes:
    return written(sealed({"schema": SCHEMA, **asdict(what)}))


def _unsealed(content: bytes) -> dict[str, Any]:
    found = unsealed(content)
    kept = {name: value for name, value in found.items() if name not in ("schema", "checksum")}
    return {**kept, "owner": Owner(**kept["owner"])}


class _Heart:
    """Writes this process's pulse, every few seconds and at every word."""

    def __init__(self, folder: Path) -> None:
        self.owner = this_process()
        self._path = folder / f"{self.owner.name}.json"
        self._said = Pulse(self.owner, "", "", 0.0, time.time())
        self._count = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._write()
        threading.Thread(target=self._go_on, daemon=True, name="pulse").start()

    def says(self, doing: str, what: str, share: float) -> None:
        fresh = (doing, what) != (self._said.doing, self._said.what)
        self._said = Pulse(self.owner, doing, what, share, time.time() if fresh else self._said.since)
        if fresh:
            self._write()  # at once: what comes next may end this process

    def stop(self) -> None:
        self._stopped.set()
        with self._lock, contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _go_on(self) -> None:
        while not self._stopped.wait(BEAT):
            self._write()

    def _write(self) -> None:
        """A pulse that cannot be written is late: a full disk ends the work where results are written, not here."""
        with self._lock, contextlib.suppress(OSError):
            if self._stopped.is_set():
                return
            self._count += 1
            draft = self._path.with_suffix(".tmp")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_sealed(replace(self._said, count=self._count)))
            os.replace(draft, self._path)
