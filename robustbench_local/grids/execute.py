"""Running one cell: a task and its model in, a row and its arrays out. Nothing is stored here."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from robustbench_local.core.corruption import Corruption
from robustbench_local.core.device import release_memory
from robustbench_local.core.errors import BoundsError, said
from robustbench_local.core.progress import Progress
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.kept import together
from robustbench_local.gallery.twins import FirstImages, Twins, chosen, twins
from robustbench_local.grids.arrays import arrays_of
from robustbench_local.grids.cell import Task
from robustbench_local.grids.certificates import arrays_of as certificate_arrays
from robustbench_local.grids.certificates import certificate, summary_of
from robustbench_local.grids.certifying import Certifying
from robustbench_local.grids.environment import environment
from robustbench_local.grids.kept_images import KeptImages, fingerprints
from robustbench_local.metrics.summary import summarise
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import CRASHED, LEFT_OUT, TIMED_OUT, Row


@dataclass(frozen=True)
class Outcome:
    """A row that is not stored yet, its per-sample arrays, and the images that a page may show; an error has none."""

    row: Row
    arrays: Mapping[str, Array] = field(default_factory=dict)
    twins: Twins | None = None


def execute(
    task: Task, model: nn.Module, *, known: AnswerCache | None = None, progress: Progress | None = None
) -> Outcome:
    """The outcome of a cell on its deployed model: "ok" with results and arrays, or "error", whatever it died of.

    known: what cells on this same model asked of clean images before; what is new is added.
    """
    if isinstance(task.cell.attack, Certifying):
        return _certified(task, task.cell.attack, model, progress)
    judge, images = task.judge, task.images
    kept = KeptImages(len(images)) if task.config.save == "x_adv" else None
    first = FirstImages() if pictured(task) else None
    started = time.monotonic()
    try:
        verdict = judge(
            model,
            images,
            task.cell.attack,
            task.cell.threat,
            progress,
            attacker=task.attacker,
            known=known,
            keep=together(kept, first),
        )
        kept_images = {} if kept is None else {"x_adv": kept.array, "fingerprint": fingerprints(judge.sees(images))}
        made = measured(task, verdict, kept_images, environment(images.device))
    except Exception as error:  # an attack may die of anything; the other cells go on
        release_memory(images.device)
        return failure(task, error, time.monotonic() - started)
    if first is not None:
        with suppress(Exception):  # a picture is not worth a row
            some = chosen(made.arrays, task.cell.attack.minimises, task.config.pictures, first.count)
            return replace(made, twins=twins(some, some.places, verdict, judge.sees(images), first))
    return made


def _certified(task: Task, attack: Certifying, model: nn.Module, progress: Progress | None) -> Outcome:
    """Where no bound is known it is left out, with the reason."""
    images, started = task.judge.sees(task.images), time.monotonic()
    try:
        found = certificate(model, images, task.cell.threat, attack.method, progress)
        results = summary_of(found) | {"seconds": time.monotonic() - started}
        return Outcome(
            _row(task, environment(task.images.device), status="ok", results=results), certificate_arrays(found, images)
        )
    except BoundsError as error:
        return left_out(task, said(error))
    except Exception as error:  # as of an attack
        release_memory(task.images.device)
        return failure(task, error, time.monotonic() - started)


def pictured(task: Task) -> bool:
    """Whether a page may show images of the task: of attacks on what is deployed, which aim at it."""
    return bool(task.config.pictures) and task.cell.adaptive and not isinstance(task.cell.attack, Corruption)


def measured(task: Task, verdict: Verdict, kept: Mapping[str, Array], where: Mapping[str, Any]) -> Outcome:
    """The outcome of a cell that ran to its end. kept: its images, where these are saved; where: its environment."""
    results = summarise(verdict, task.images.classes)
    arrays = arrays_of(verdict, task.config.save) | dict(kept)
    return Outcome(_row(task, where, status="ok", results=results), arrays)


def failure(task: Task, error: Exception, seconds: float = 0.0) -> Outcome:
    """The outcome of a cell that died, or whose model could not be built."""
    what = {
        "cell": str(task.cell),
        "type": type(error).__name__,
        "message": said(error),
        "traceback": "".join(traceback.format_exception(error)),
        "seconds": seconds,
    }
    return Outcome(_row(task, environment(task.images.device), status="error", error=what))


def left_out(task: Task, reason: str) -> Outcome:
    """The outcome of a cell whose attack cannot be run on its model: "needs gradients, and the model grants scores"."""
    what = {"cell": str(task.cell), "type": LEFT_OUT, "message": reason}
    return Outcome(_row(task, environment(task.images.device), status="error", error=what))


def given_up(task: Task, reason: str, *, timed_out: bool) -> Outcome:
    """The outcome of a cell that ended the processes that worked on it, or took longer than it may."""
    what = {"cell": str(task.cell), "type": TIMED_OUT if timed_out else CRASHED, "message": reason}
    return Outcome(_row(task, environment(task.images.device), status="error", error=what))


def _row(task: Task, where: Mapping[str, Any], **what: Any) -> Row:
    said = {} if task.origin is None else {"origin": task.origin}
    return Row(
        key=task.key,
        **what,
        **said,
        grid=task.grid,
        definition=task.definition,
        families=task.cell.model.families,
        minimises=task.cell.attack.minimises,
        environment=dict(where),
    )
