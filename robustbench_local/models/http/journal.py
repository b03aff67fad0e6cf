"""What an endpoint answered, and what it was asked: written before it is used, so that no run pays for it again.

A file of lines, each a checksum and a record. An image has the answers that it got, in their order: whoever asks about
it for the k-th time is given the k-th of them. So a resumed run replays what the killed one saw, and a check that
repeats a question, to see whether the answers differ, reaches the endpoint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import ModelError, StoreError
from robustbench_local.storage.cache_folder import cache_folder
from robustbench_local.storage.files import locked

Floats = npt.NDArray[np.float32]
_FORMAT = 1


def journal_file(identity: str) -> Path:
    """Where the answers of the model of that identity are kept."""
    return cache_folder() / "endpoints" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.jsonl"


def image_key(image: npt.NDArray[Any]) -> str:
    """A digest of one image as it is sent."""
    head = f"{image.dtype} {image.shape}\n".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest()


class Journal:
    """Of one model, shared by every process that asks it; threads may share an object.

    most: images that may be asked about, by all of them together. What was sent counts, unless it was refused: an
    answer that got lost on the way may have been paid for. StoreError where the file cannot be read or written.
    """

    def __init__(self, path: Path, identity: str, most: int | None = None) -> None:
        self.path, self.most = path, most
        self.spent = 0
        self._answers: dict[str, list[tuple[int, int]]] = defaultdict(list)  # where each is: first byte, length
        self._read = 0  # bytes of the file
        self._lock = threading.Lock()
        with self._alone():
            if not self._read:
                self._write([{"journal": _FORMAT, "identity": identity}])

    def __len__(self) -> int:
        """How many answers there are."""
        return sum(map(len, self._answers.values()))

    def refresh(self) -> None:
        """Know what others wrote meanwhile."""
        with self._alone():
            pass

    def answer(self, key: str, place: int) -> Floats | None:
        """The one in that place of an image's answers; None where it did not get so many."""
        with self._lock:
            places = self._answers.get(key, [])
            if place >= len(places):
                return None
            first, length = places[place]
            try:
                with self.path.open("rb") as file:
                    file.seek(first)
                    record = _record(file.read(length))
            except OSError as error:
                raise self._unusable(error) from error
        if record is None:
            raise StoreError(f"{self.path} was changed while it was read: run again")
        return np.frombuffer(base64.b64decode(record["answer"]), "<f4")

    def reserve(self, images: int) -> None:
        """Before they are sent. ModelError where that would be more than may be asked about."""
        with self._alone():
            if self.most is not None and self.spent + images > self.most:
                raise ModelError(
                    f"the budget of {self.most} queries (endpoint: queries) is spent: {self.spent} images were asked"
                    f" about, and {images} more are to be. What was answered is kept in {self.path}; the same command"
                    " with a larger budget goes on from there"
                )
            self._write([{"asked": images}])

    def release(self, images: int) -> None:
        """They were refused: nothing was paid."""
        with self._alone():
            self._write([{"refused": images}])

    def keep(self, keys: Sequence[str], answers: Floats) -> None:
        """The answers (n, ...) to the images of these keys, on the disk when this returns."""
        texts = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in answers]
        with self._alone():
            self._write([{"image": key, "answer": text} for key, text in zip(keys, texts, strict=True)], sync=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process writes meanwhile, and what they wrote before is known."""
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()
                with locked(self.path):
                    self._catch_up()
                    yield
            except OSError as error:
                raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the journal {self.path} cannot be used: {error.strerror}. No answer is used that is not written there"
        )

    def _write(self, records: Sequence[dict[str, Any]], sync: bool = False) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(map(_line, records)))
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self._catch_up()

    def _catch_up(self) -> None:
        """Read what was added since. Nobody writes now: half a line is a killed writer's, and is cut off."""
        size = self.path.stat().st_size
        if size == self._read:
            return
        if size < self._read:
            raise StoreError(f"{self.path} was removed or cut while it was used: run again")
        damaged = []
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    warnings.warn(f"{self.path}: its last record was cut short, and is left out", stacklevel=5)
                    os.truncate(self.path, self._read)
                    break
                record = _record(line)
                if record is None or not self._note(record, self._read, len(line)):
                    damaged.append(self._read)
                self._read += len(line)
        if damaged:
            warnings.warn(
                f"{self.path}: {len(damaged)} damaged records, the first at byte {damaged[0]}, are left out: what they"
                " answered is asked again",
                stacklevel=5,
            )

    def _note(self, record: dict[str, Any], first: int, length: int) -> bool:
        """Whether it is a record that is known here."""
        match record:
            case {"image": str(key), "answer": str()}:
                self._answers[key].append((first, length))
            case {"asked": int(images)}:
                self.spent += images
            case {"refused": int(images)}:
                self.spent -= images
            case {"journal": int(number), "identity": str()}:
                return number == _FORMAT
            case _:
                return False
        return True


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return _checksum(text) + b" " + text + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None where it is not what was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    return json.loads(text) if checksum == _checksum(text) else None


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()
