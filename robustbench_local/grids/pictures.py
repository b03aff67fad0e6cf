"""The pictures of a grid's page: images are put by as cells run, and drawn once all of a model's rows are there.

FOLDER/running/twins/KEY.npz    of a row that is new, until the grid ends
FOLDER/pictures/*.json          of each model within each threat, see report/panel.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from robustbench_local.core.errors import StoreError, said
from robustbench_local.core.progress import Progress
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.gallery.again import twins_again
from robustbench_local.gallery.panel import draw_panel, reached
from robustbench_local.gallery.twins import Twins, chosen
from robustbench_local.grids.cell import Task
from robustbench_local.grids.execute import Outcome, pictured
from robustbench_local.grids.running import FOLDER
from robustbench_local.report.panel import keep_panel, read_panel
from robustbench_local.storage import npz
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store

TWINS = "twins"
_ARRAYS = ("ids", "clean", "robust", "distance", "success")


class Pictures:
    """Of one grid, whose rows are in that store. A row that was done before has none, unless it had some then."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._folder = store.folder / FOLDER / TWINS

    def remember(self, task: Task, outcome: Outcome, model: nn.Module, known: AnswerCache, *, in_parts: bool) -> None:
        """Put the twins of a new row by; of one that was done in parts they are made once more, a few of its many
        images. StoreError as in whole_file.
        """
        if not outcome.row.ok or not pictured(task):
            return
        with self._contained():
            found = outcome.twins
            if in_parts:
                some = chosen(outcome.arrays, task.cell.attack.minimises, task.config.pictures)
                found = twins_again(outcome.row, some, model, task.judge.sees(task.images), known)
            if found is not None:
                with whole_file(self._folder / f"{task.key}.npz") as file:
                    np.savez(file, **asdict(found))

    def draw(self, rows: Iterable[Row], model: nn.Module, classes: Sequence[str]) -> None:
        """Draw one model's, within each threat of the strongest attack whose images were put by, unless those of an
        attack that is as strong are there. StoreError as in whole_file.
        """
        with self._contained():
            self._draw(rows, model, classes)

    def _draw(self, rows: Iterable[Row], model: nn.Module, classes: Sequence[str]) -> None:
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row.ok and row.adaptive and not row.corrupts:
                groups.setdefault((row.of_group(), row.threat), []).append(row)
        for own in groups.values():
            new = [row for row in own if self._path(row).is_file()]
            if not new:
                continue
            row = min(new, key=_robust)
            there = read_panel(self._store, row)
            old = next((each for each in own if there is not None and each.key == there.row), None)
            found = self._twins(row)
            if found is None or (old is not None and _robust(old) <= _robust(row)):
                continue
            near = reached(own, found.ids, lambda each: self._store.arrays(each.key, *_ARRAYS))
            keep_panel(self._store, row, draw_panel(row, found, model, classes, near))

    def _twins(self, row: Row) -> Twins | None:
        """What is damaged counts as missing: it is a picture, and no figure."""
        with suppress(OSError, StoreError), self._path(row).open("rb") as file:
            arrays = npz.load(file)
            fell, looked = int(arrays.pop("fell")), int(arrays.pop("looked"))
            return Twins(**arrays, fell=fell, looked=looked)
        return None

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """A stranger's model may die of anything, and no figure hangs on a picture."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            self._progress.line(f"the pictures FAILED, {type(error).__name__}: {said(error)}")

    def _path(self, row: Row) -> Path:
        return self._folder / f"{row.key}.npz"


def _robust(row: Row) -> float:
    return row.results["robust_accuracy"]
