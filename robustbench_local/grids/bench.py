"""One process at work on a grid: the models that it holds ready, and what it does for a job. Whatever executes a grid,
executes it here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from torch import nn

from robustbench_local.audit.escalation import audit_and_keep
from robustbench_local.audit.finding import Status
from robustbench_local.core.access import beyond
from robustbench_local.core.containment import contained
from robustbench_local.core.errors import ModelError, PluginError, StoreError, said
from robustbench_local.core.progress import Part as Stretch
from robustbench_local.core.progress import Progress
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.grids.cell import Cell, Task, applicable
from robustbench_local.grids.deaths import Death, in_words
from robustbench_local.grids.execute import execute, failure, given_up, left_out
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Group, Job
from robustbench_local.grids.pictures import Pictures
from robustbench_local.grids.price import bill
from robustbench_local.grids.shards import Part, Shards, execute_part, parts_of
from robustbench_local.grids.shelf import Shelf
from robustbench_local.grids.watched import Watched
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row
from robustbench_local.training.turn import BusyError

_WARM = 4  # models held ready at a time


@dataclass
class Deployed:
    """A model, held ready. tasks, keys: of the group's cells, and of their rows; None for a cell that means nothing for
    this model.

    known: what it answered about clean images. error: why there is no model.
    """

    model: nn.Module | None
    tasks: list[Task | None]
    keys: list[str | None]
    known: AnswerCache = field(default_factory=AnswerCache)
    error: Exception | None = None


class Bench:
    """Takes jobs one after the other; the same job twice does the work once.

    trains: otherwise a model that must be trained first counts as one that somebody else trains.
    """

    def __init__(self, grid: Grid, trains: bool = True) -> None:
        self.grid, self.shelf, self._running, self._trains = grid, Shelf(grid), grid.running, trains
        self.shards = Shards(grid.store.folder)
        self.pictures = Pictures(grid.store, grid.progress)
        self._ready: OrderedDict[int, Deployed] = OrderedDict()

    def keys(self, group: Group) -> list[str | None] | None:
        """The names of the rows of its cells, None where the model must be built first and somebody else trains it."""
        known = self._running.keys(group.place)
        if known is None:
            try:
                self._deployed(group)
            except BusyError:
                return None
            known = self._running.keys(group.place)
        return known

    def do(self, job: Job) -> Row | None:
        """A cell's row, after its work is done; None of an audit, of a cell that means nothing, and where a part of the
        cell is missing.
        """
        deployed = self._deployed(job.group)
        if job.cell is None:
            self._audit(job.group, deployed)
            return None
        task = deployed.tasks[job.cell]
        return None if task is None else self._row(job, task, deployed)

    def missing_parts(self, job: Job) -> list[slice]:
        """The images start:stop of a cell that is done in parts, of those that are not there yet."""
        found = self._parts(job)
        return [] if found is None else [rows for rows in found[1] if not self.shards.there(found[0], rows)]

    def do_part(self, job: Job, rows: slice, name: str) -> None:
        """Images start:stop of a cell; where they cannot be done, the cell's row is an error. name: of the claim."""
        deployed = self._deployed(job.group)
        task = None if job.cell is None else deployed.tasks[job.cell]
        if task is None or deployed.model is None or self.shards.there(task, rows):
            return
        if deaths := self._running.deaths.too_many(name):
            self._give_up(task, name, deaths)
            return
        watched = self._watched(job, name, f"{task.cell}, images {rows.start}:{rows.stop}")
        made = execute_part(task, deployed.model, rows, known=deployed.known, progress=watched)
        if isinstance(made, Part):
            self.shards.keep(made)
            self._running.deaths.came_through(name)
        else:
            self.shelf.keep(made, task.cell)

    def ended(self) -> list[Row | None]:
        """The rows of all cells that mean something, in their order, whoever made them; None where one is not there."""
        found: list[Row | None] = []
        for group in self.grid.groups:
            keys = self.keys(group)
            found += [None for _ in group.cells] if keys is None else map(self.shelf.ended, filter(None, keys))
        return found

    def _deployed(self, group: Group) -> Deployed:
        """The model, built or trained if need be. BusyError where another process trains it."""
        if group.place in self._ready:
            self._ready.move_to_end(group.place)
            return self._ready[group.place]
        doing, what = self._running.building(group), f"making {group}"
        self._running.claims.says(doing, what)
        self.grid.builder.progress = Watched(self.grid.progress, self._running.claims, doing, what)
        made = self._made(group)
        self._ready[group.place] = made
        while len(self._ready) > _WARM:
            self._ready.popitem(last=False)
        self._running.know(group.place, made.keys)
        return made

    def _made(self, group: Group) -> Deployed:
        grid, builder, running = self.grid, self.grid.builder, self._running
        try:
            if deaths := running.deaths.too_many(running.building(group)):
                raise ModelError(f"making the model failed: {in_words(deaths)}")
            with contained(PluginError, group.spec.label):
                if there := self.shelf.made_elsewhere(group):
                    return self._elsewhere(group, there)
                if not self._trains and builder.needs_training(group.spec):
                    raise BusyError(f"{group} is to be trained by another worker")
                model = builder.build(group.spec)
            digest, origin = weights_digest(model), builder.origin(group.spec)
            meant = {id(cell) for cell in applicable(group.cells, model)}
        except (StoreError, BusyError):
            raise
        except Exception as error:  # a stranger's model may die of anything; the other models go on
            return self._deployable(None, [grid.task(cell, None) for cell in group.cells], error)
        running.deaths.came_through(running.building(group))
        tasks = [grid.task(cell, digest, origin) if id(cell) in meant else None for cell in group.cells]
        self._say_price(model, [task for task in tasks if task])
        return self._deployable(model, tasks)

    def _elsewhere(self, group: Group, there: list[tuple[Cell, Row]]) -> Deployed:
        """Of rows that are done for all time: no model is needed."""
        keys = {id(cell): row.key for cell, row in there}
        self.grid.progress.line(f"{group}: done before, by the same recipe on another machine")
        self._running.audited(group.place)
        return Deployed(None, [None for _ in group.cells], [keys.get(id(cell)) for cell in group.cells])

    @staticmethod
    def _deployable(model: nn.Module | None, tasks: list[Task | None], error: Exception | None = None) -> Deployed:
        return Deployed(model, tasks, [None if task is None else task.key for task in tasks], error=error)

    def _row(self, job: Job, task: Task, deployed: Deployed) -> Row | None:
        """The task's row: the stored one where it is good, otherwise a new one."""
        if kept := self.shelf.resumed(task):
            return kept
        cell, running = task.cell, self._running
        if deployed.model is None:
            return self.shelf.keep(failure(task, deployed.error or ModelError("there is no model")), cell)
        if reason := beyond(cell.attack.access, deployed.model):
            return self.shelf.keep(left_out(task, reason), cell)
        if deaths := running.deaths.too_many(task.key):
            return self._give_up(task, task.key, deaths)
        if parts := self._parts(job):
            outcome = self.shards.merged(*parts)
            if outcome is None:
                return None
        else:
            watched = self._watched(job, task.key, str(cell))
            outcome = execute(task, deployed.model, known=deployed.known, progress=watched)
        row = self.shelf.keep(outcome, cell)
        self.pictures.remember(task, outcome, deployed.model, deployed.known, in_parts=bool(parts))
        running.deaths.came_through(task.key)
        if parts:
            self.shards.remove(*parts)
        return row

    def _parts(self, job: Job) -> tuple[Task, list[slice]] | None:
        """The cell and its parts; None where it is done in one piece."""
        size = self.grid.config.shard
        if size is None or job.cell is None:
            return None
        deployed = self._deployed(job.group)
        task = deployed.tasks[job.cell]
        if task is None or deployed.model is None or beyond(task.cell.attack.access, deployed.model):
            return None
        rows = parts_of(task, size)
        return None if rows is None else (task, rows)

    def _give_up(self, task: Task, name: str, deaths: list[Death]) -> Row:
        row = self.shelf.keep(given_up(task, in_words(deaths), timed_out=deaths[-1].timed_out), task.cell)
        self._running.deaths.forget(name)
        return row

    def _watched(self, job: Job, name: str, what: str) -> Progress:
        """The progress of a job, shown here and told to others."""
        place, count = job.group.start + (job.cell or 0), len(self.grid.cells)
        self._running.claims.says(name, what)
        part = Stretch(self.grid.progress, f"{place + 1}/{count} {what}", place / count, 1 / count)
        return Watched(part, self._running.claims, name, what)

    def _say_price(self, model: nn.Module, tasks: list[Task]) -> None:
        """What the cells that are not done may cost, where the model is paid for."""
        if text := bill(model, [task for task in tasks if not self.shelf.is_done(task.key)]):
            self.grid.progress.line(text)

    def _audit(self, group: Group, deployed: Deployed) -> None:
        """Audit one model's rows; what dies of it stops no grid, and there is then no audit."""
        grid, running, name = self.grid, self._running, self._running.name(Job(group))
        found = (self.shelf.settled(key) for key in running.keys(group.place) or () if key)
        rows = [row for row in found if row is not None and row.is_cell]
        if deaths := running.deaths.too_many(name):
            grid.progress.line(f"the audit FAILED: {in_words(deaths)}")
        elif deployed.model is not None and rows:
            running.claims.says(name, f"audit of {group}")
            images = group.cells[0].judge(grid.config).sees(grid.images[group.spec.data, None])
            try:
                for audit in audit_and_keep(rows, grid.store, deployed.model, images, deployed.known):
                    for each in audit.findings:
                        if each.finding.status is not Status.SOUND:
                            grid.progress.line(f"audit, {each.threat}: {each.finding.check}: {each.finding.evidence}")
            except StoreError:
                if self.shelf.stored(rows):
                    raise  # otherwise they are made again, and audited then
            except Exception as error:  # a stranger's model may die of anything
                grid.progress.line(f"the audit FAILED, {type(error).__name__}: {said(error)}")
            self.pictures.draw(rows, deployed.model, grid.images[group.spec.data, None].classes)
            running.deaths.came_through(name)
        running.audited(group.place)
