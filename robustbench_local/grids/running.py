"""What a running grid keeps beside its rows, so that its workers, and whoever watches, know of each other.

    FOLDER/running/plan-RUN.json     the cells, and what each of them costs beside the others
    FOLDER/running/models/*.json     the names of a model's rows, once it is built
    FOLDER/running/claims, pulses    who is at work on what (storage/claims.py)
    FOLDER/running/deaths            what ended workers (deaths.py)
    FOLDER/running/logs              what workers said

RUN is a digest of what is asked for: the same command, here or elsewhere, asks for the same. What a model's rows are
called is believed for one start of the command alone, since files of models change. All of it may be removed when
nothing runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.errors import StoreError
from robustbench_local.grids.deaths import Deaths
from robustbench_local.grids.jobs import Group, Job
from robustbench_local.storage.claims import Claims
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.owner import this_process
from robustbench_local.storage.sealing import SCHEMA, digest, plain, sealed, unsealed, written

FOLDER = "running"
# keys of a grid that say how it is done, not what
_WHO = ("device", "batch_size", "results", "executor", "cluster", "workers", "worker", "log")
_HOW = (*_WHO, "timeout", "memory", "shard", "retry", "force", "model_info")


@dataclass(frozen=True)
class Planned:
    """A cell as it is planned: how it is called, its model's place, and its cost beside that of the others."""

    label: str
    group: int
    work: float


class Running:
    """In the folder of a grid's results. run: what is asked for, see `run_of`. start: of the command, any text; None
    for one who only watches, and believes the last one.
    """

    def __init__(self, folder: Path, run: str, start: str | None) -> None:
        self.folder, self.run, self.start = folder / FOLDER, run, start
        self.claims = Claims(self.folder)
        self.deaths = Deaths(self.folder / "deaths")
        self._keys: dict[int, list[str | None]] = {}

    def name(self, job: Job) -> str:
        """Of an audit's claim; a cell's is the name of its row."""
        return f"{self.run}-audit-{job.group.place}"

    def building(self, group: Group) -> str:
        """What a process does that builds the model."""
        return f"{self.run}-model-{group.place}"

    def plan(self, cells: Sequence[Planned]) -> None:
        self._write(f"plan-{self.run}.json", {"cells": [asdict(cell) for cell in cells]})

    def planned(self) -> list[Planned]:
        found = self._read(f"plan-{self.run}.json") or {}
        return [Planned(**cell) for cell in found.get("cells", [])]

    def is_limited(self, doing: str) -> bool:
        """Whether a job's time is limited: of a cell or an audit, but not of making a model, which may be trained."""
        return bool(doing) and not doing.startswith(f"{self.run}-model-")

    def keys(self, group: int) -> list[str | None] | None:
        """The names of the rows of a model's cells, None for cells that mean nothing for it; None where nobody built
        the model yet.
        """
        if self.start is None:
            written = (self.folder / "models").glob(f"{self.run}-*-{group}.json")
            last = max(written, key=lambda path: path.stat().st_mtime, default=None)
            return None if last is None else (self._read(f"models/{last.name}") or {}).get("keys")
        if group not in self._keys and (found := self._read(self._model(group))):
            self._keys[group] = found["keys"]
        return self._keys.get(group)

    def know(self, group: int, keys: list[str | None]) -> None:
        if self.keys(group) != keys:
            self._keys[group] = keys
            self._write(self._model(group), {"keys": keys})

    def is_audited(self, group: int) -> bool:
        return self._read(self._model(group, "-audited")) is not None

    def audited(self, group: int) -> None:
        self._write(self._model(group, "-audited"), {})

    def tidy(self) -> None:
        """Remove all of it, now that all is done, unless somebody else is at work here."""
        here = this_process().name
        if any(pulse.owner.name != here and not self.claims.is_gone(pulse.owner) for pulse in self.claims.pulses()):
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def _model(self, group: int, what: str = "") -> str:
        return f"models/{self.run}-{self.start}-{group}{what}.json"

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with whole_file(self.folder / name) as file:
            file.write(written(sealed({"schema": SCHEMA, **content})))

    def _read(self, name: str) -> dict[str, Any] | None:
        """What is damaged counts as not there: it is found out again."""
        try:
            return unsealed((self.folder / name).read_bytes())
        except (OSError, StoreError):
            return None


def run_of(config: GridConfig, cells: Sequence[object]) -> str:
    """12 hex digits of all that is asked for, but not of who does it, and how many."""
    asked = {key: value for key, value in asdict(config).items() if key not in _HOW}
    return digest(plain({"config": asked, "cells": [str(cell) for cell in cells]}), 12)
