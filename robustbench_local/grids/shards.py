"""A cell split by its images: parts that any process may make, and the outcome of the whole, exactly as in one go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.core.device import release_memory
from robustbench_local.core.errors import StoreError
from robustbench_local.core.progress import Progress
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.batch import BatchVerdict
from robustbench_local.evaluation.kept import dropped
from robustbench_local.evaluation.part_verdict import PartVerdict, joined
from robustbench_local.grids.cell import Task
from robustbench_local.grids.certifying import Certifying
from robustbench_local.grids.environment import environment
from robustbench_local.grids.execute import Outcome, failure, measured
from robustbench_local.grids.kept_images import KeptImages, fingerprints
from robustbench_local.storage import npz
from robustbench_local.storage.npz import Array
from robustbench_local.storage.part_store import PartStore
from robustbench_local.storage.sealing import Record

_SAID = ("changed", "wrote", "declared", "detects", "seconds")  # what a record says of a part as it is
_PASSES = ("prepared_forwards", "prepared_backwards", "checked_forwards", "judged_forwards")
_NOTE = "note_"


@dataclass(frozen=True)
class Part:
    """What was found of images `rows`, start:stop, of the task that is named by `key`.

    digest: of these images as they were. environment: of the process that made it. images: x_adv (n, C, H, W) and
    fingerprint (n,), where the row keeps its images; x_adv lies in a temporary file.
    """

    key: str
    rows: slice
    digest: str
    environment: Mapping[str, Any]
    verdict: PartVerdict
    images: Mapping[str, Array] = field(default_factory=dict)


def parts_of(task: Task, size: int) -> list[slice] | None:
    """The parts of about `size` images that the task may be split into, the last one smaller; None: it is one piece.

    They depend on nothing but the task, so that all processes agree. Where the grid says a batch size, parts are whole
    batches, and the merged row is to the last bit what it is in one go. Otherwise it is so where `size` is a multiple
    of the batch size that the judge finds (250 on a CPU), and elsewhere but for near-ties, as with other batches.
    """
    count, batch = len(task.images), task.config.batch_size or 1
    if isinstance(task.cell.attack, Certifying):
        return None
    if task.cell.attack.own_images:
        return None  # it learns once, from the attacker's images, and its parts would each learn anew
    if task.config.budget is not None:
        return None  # which is of the checks beforehand too, and each part checks the same images again
    size = -(-size // batch) * batch
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] if count > size else None


def execute_part(
    task: Task, model: nn.Module, rows: slice, *, known: AnswerCache | None = None, progress: Progress | None = None
) -> Part | Outcome:
    """What is found of images rows, start:stop, on the deployed model; or where it died the outcome of the whole cell,
    which is then an error, as `execute` has it.

    known: what cells and parts on this same model asked of clean images before; what is new is added.
    """
    judge, images = task.judge, task.images
    kept = KeptImages(rows.stop - rows.start) if task.config.save == "x_adv" else None
    started = time.monotonic()
    try:
        verdict = judge.part(
            model,
            images,
            task.cell.attack,
            task.cell.threat,
            rows,
            progress,
            attacker=task.attacker,
            known=known,
            keep=kept or dropped,
        )
        seen = {} if kept is None else {"x_adv": kept.array, "fingerprint": fingerprints(judge.sees(images), rows)}
        return Part(task.key, rows, digest(task, rows), environment(images.device), verdict.on_host(), seen)
    except Exception as error:  # as in execute
        release_memory(images.device)
        return failure(task, error, time.monotonic() - started)


def merged(task: Task, parts: Iterable[Part]) -> Outcome:
    """The outcome of the whole task by its parts, in the order of its images; each is let go before the next is asked
    for, but for its verdict.

    It is the one that `execute` has, but for what counts work: seconds, checked_forwards and judged_forwards are what
    all parts took together, and more than in one go, since every part checks the model (see part_verdict.joined). Of an
    environment that was not the same for all parts, all values are named. StoreError where a part is missing, is there
    twice, in another order, of other images or of another task.
    """
    started = time.monotonic()
    try:
        return _merged(task, parts)
    except StoreError:
        raise
    except Exception as error:  # as in execute
        return failure(task, error, time.monotonic() - started)


def digest(task: Task, rows: slice) -> str:
    """sha256 over ids, labels and pixels of images start:stop of a task."""
    made = hashlib.sha256()
    for values in (task.images.ids[rows], task.images.labels[rows], fingerprints(task.images, rows)):
        made.update(np.asarray(values.cpu() if isinstance(values, Tensor) else values).astype("<i8").tobytes())
    return made.hexdigest()


class Shards:
    """The parts of a grid's cells that are made and not merged yet, in its folder: see storage/part_store.py."""

    def __init__(self, folder: str | Path) -> None:
        self._store = PartStore(folder)

    def keep(self, part: Part) -> None:
        """Store it. StoreError where that cannot be."""
        verdict, found = part.verdict, part.verdict.found
        record = {
            "key": part.key,
            "rows": [part.rows.start, part.rows.stop],
            "digest": part.digest,
            "environment": part.environment,
            "flags": verdict.flags,
            "forms": sorted(verdict.forms),
            "faults": found.faults,
            **{name: getattr(verdict, name) for name in (*_SAID, *_PASSES)},
        }
        tensors = {"labels": verdict.labels, "ids": verdict.ids, **found.tensors}
        tensors |= {f"{_NOTE}{name}": values for name, values in found.notes.items()}
        arrays = {name: np.asarray(tensor.contiguous()) for name, tensor in tensors.items()}
        self._store.write(_name(part.key, part.rows), record, arrays | dict(part.images))

    def there(self, task: Task, rows: slice) -> bool:
        """Whether that part of the task is stored, by its record: `find` looks at all of it."""
        record = self._store.record(_name(task.key, rows))
        return record is not None and _is_of(record, task, rows)

    def find(self, task: Task, rows: slice) -> Part | None:
        """That part of the task, verified; None where it is not there, damaged, or of other images."""
        name = _name(task.key, rows)
        if (record := self._store.record(name)) is None:
            return None
        try:
            if not _is_of(record, task, rows) or record["digest"] != digest(task, rows):
                raise StoreError("it is of other images, or of another cell")
            return self._read(name, record, rows)
        except (StoreError, KeyError) as fault:  # a key that another version writes, or does not
            self._store.reject(name, str(fault))
            return None

    def merged(self, task: Task, parts: Sequence[slice]) -> Outcome | None:
        """The outcome of the whole task; None where a part is missing or damaged, which is then to be made."""
        try:
            return merged(task, self._found(task, parts))
        except _MissingError:
            return None

    def _found(self, task: Task, parts: Sequence[slice]) -> Iterator[Part]:
        for rows in parts:
            if (part := self.find(task, rows)) is None:
                raise _MissingError(_name(task.key, rows))
            yield part

    def remove(self, task: Task, parts: Sequence[slice]) -> None:
        """What was merged."""
        for rows in parts:
            self._store.remove(_name(task.key, rows))

    def _read(self, name: str, record: Record, rows: slice) -> Part:
        count = rows.stop - rows.start
        with self._store.arrays(name, record, count) as archive:
            small = tuple(record["arrays"].keys() - {"x_adv"})
            arrays = npz.load(archive, small)
            images = {"fingerprint": arrays.pop("fingerprint")} if "fingerprint" in arrays else {}
            if "x_adv" in record["arrays"]:
                kept, done = KeptImages(count), 0
                for block in npz.blocks(archive, "x_adv"):
                    kept.put(slice(done, done + len(block)), block)
                    done += len(block)
                images["x_adv"] = kept.array
        tensors = {each: torch.from_numpy(values) for each, values in arrays.items()}
        notes = {each: tensors.pop(each) for each in [*tensors] if each.startswith(_NOTE)}
        verdict = PartVerdict(
            labels=tensors.pop("labels"),
            ids=tensors.pop("ids"),
            x_adv=torch.empty(0, 1, 1, 1),
            found=BatchVerdict(
                tensors, record["faults"], {each.removeprefix(_NOTE): values for each, values in notes.items()}
            ),
            flags=tuple(record["flags"]),
            forms=frozenset(record["forms"]),
            **{each: record[each] for each in (*_SAID, *_PASSES)},
        )
        return Part(record["key"], rows, record["digest"], record["environment"], verdict, images)


class _MissingError(StoreError):
    """A part is not there."""


def _merged(task: Task, parts: Iterable[Part]) -> Outcome:
    images = task.images
    kept = KeptImages(len(images)) if task.config.save == "x_adv" else None
    verdicts: list[PartVerdict] = []
    known: list[Array] = []
    places: list[Mapping[str, Any]] = []
    done = 0
    for part in parts:
        _check(task, part, done)
        verdicts.append(part.verdict)
        places.append(part.environment)
        if kept is not None:
            known.append(part.images["fingerprint"])
            for rows in _blocks(part.images["x_adv"]):
                kept.put(slice(done + rows.start, done + rows.stop), part.images["x_adv"][rows])
        done = part.rows.stop
    if done < len(images):
        raise StoreError(f"{task.cell}: images {done}:{len(images)} are in none of its {len(verdicts)} parts")
    seen = {} if kept is None else {"x_adv": kept.array, "fingerprint": np.concatenate(known)}
    return measured(task, joined(verdicts), seen, _everywhere(places))


def _check(task: Task, part: Part, done: int) -> None:
    """StoreError unless it is the part of the task that begins at image `done`."""
    rows, verdict = part.rows, part.verdict
    if part.key != task.key:
        raise StoreError(f"{task.cell}: a part is of another cell, {part.key}, not {task.key}")
    if rows.start != done or not done < rows.stop <= len(task.images):
        raise StoreError(f"{task.cell}: images {rows.start}:{rows.stop} come where those from {done} on are to come")
    for mine, own in ((verdict.ids, task.images.ids), (verdict.labels, task.images.labels)):
        if not torch.equal(mine, own[rows].cpu()):
            raise StoreError(f"{task.cell}: part {rows.start}:{rows.stop} is of other images, or in another order")


def _is_of(record: Record, task: Task, rows: slice) -> bool:
    return bool(record.get("key") == task.key and record.get("rows") == [rows.start, rows.stop])


def _name(key: str, rows: slice) -> str:
    return f"{key}.{rows.start}-{rows.stop}"


def _blocks(array: Array) -> Iterable[slice]:
    """The rows of an array (n, ...) in pieces of 64 MiB, so that no more of a file is in memory at once."""
    size = max(1, 2**26 // max(1, array[:1].nbytes))
    return [slice(start, min(start + size, len(array))) for start in range(0, len(array), size)]


def _everywhere(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The environment of all parts: what was the same as it is, and of the rest every value."""
    found = {}
    for name in places[0]:
        values = [*dict.fromkeys(place.get(name) for place in places)]
        found[name] = values[0] if len(values) == 1 else " + ".join(map(str, values))
    return found
