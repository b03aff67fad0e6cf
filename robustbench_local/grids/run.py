"""Running a grid: cells -> rows -> table. What is done is never done again, and one failing cell stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import nn

from robustbench_local.audit.escalation import audit_and_keep
from robustbench_local.audit.finding import Status
from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Location
from robustbench_local.config.schema import GridConfig
from robustbench_local.core.access import beyond
from robustbench_local.core.containment import contained, guarded
from robustbench_local.core.device import pick_device
from robustbench_local.core.errors import PluginError, StoreError
from robustbench_local.core.progress import Part, Progress
from robustbench_local.core.source import Source
from robustbench_local.data.images import Images
from robustbench_local.data.transform import Transform
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.budget import budget_within
from robustbench_local.grids.arrays import SAVED
from robustbench_local.grids.cell import Cell, Task, applicable
from robustbench_local.grids.execute import Outcome, execute, failure, left_out
from robustbench_local.grids.images import judged, learnt_from, numbering, sized
from robustbench_local.grids.kept_images import check_room
from robustbench_local.grids.plan import as_list, read_config, resolve
from robustbench_local.grids.price import Pace, Price, bill
from robustbench_local.report import baseline
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import WEIGHTS, Row, done
from robustbench_local.storage.sealing import plain
from robustbench_local.storage.store import Store
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.spec import ModelSpec


@guarded()
@checked()
def run_grid(grid: Location, *, progress: Progress | None = None, **overrides: Any) -> list[Row]:
    """Run a packaged grid, or the one in a YAML file, and return its rows, in the order of the cells.

    overrides replace what the file says (n=500, attacks=["fgsm"]); config.schema.GridConfig lists the keys. A row has
    status "ok", with its results, or "error", with its error. With dry_run=True nothing runs, and the status is "done",
    "to do" or "must train". Rows and tables are written to results/<name of the grid>/.
    Raises ConfigError, PluginError, ThreatError, ModelError or DataError before anything runs, and StoreError where
    rows cannot be written.
    """
    opened = Grid.open(str(grid), overrides, progress or Progress())
    return opened.preview() if opened.config.dry_run else opened.run()


@dataclass(frozen=True)
class Grid:
    """A grid, resolved: its cells, the images they are about, and the store of its rows.

    neighbours: the stores of other grids in the same results folder, whose rows are taken over. images: by data set
    and n, None for all of the grid's. attackers: by data set, what an attack may learn from.
    """

    name: str
    config: GridConfig
    progress: Progress
    store: Store
    neighbours: tuple[Store, ...]
    builder: ModelBuilder
    cells: tuple[Cell, ...]
    images: dict[tuple[str, int | None], Images]
    attackers: dict[str, Images]

    @classmethod
    def open(cls, name: str, overrides: dict[str, Any], progress: Progress) -> Grid:
        """The grid of that name or path. ConfigError and its like on any mistake in it; nothing runs."""
        return cls.of(read_config(name, overrides), Path(name).stem, progress)

    @classmethod
    def of(cls, config: GridConfig, name: str, progress: Progress) -> Grid:
        """The grid that a configuration says, under that name, as `open` gives it."""
        device = pick_device(config.device)
        store = Store(Path(config.results).expanduser() / name)
        builder = ModelBuilder(device, config.source, progress)
        cells = tuple(resolve(config, builder))
        config = sized(config, cells, builder)
        builder.transform = Transform.of(config.resize, config.crop)
        wanted = {(str(data), None) for data in as_list(config.data)} | {(cell.model.data, cell.n) for cell in cells}
        names = {data: numbering(data, cells, builder) for data, _ in wanted}
        images = {(data, n): judged(config, data, n, device, names[data]) for data, n in wanted}
        for each in images.values() if config.save == "x_adv" else ():
            check_room(each, config.precision)
        for cell in cells:
            cell.attack.sources()  # what an attack reads must be there before anything runs
        learning = {cell.model.data for cell in cells if cell.attack.own_images}
        attackers = {data: learnt_from(config, images[data, None], data, names[data]) for data in learning}
        neighbours = tuple(store.neighbours())
        return cls(name, config, progress, store, neighbours, builder, cells, images, attackers)

    def only(self, wanted: Callable[[Cell], bool]) -> Grid:
        """The same grid with fewer cells."""
        return replace(self, cells=tuple(filter(wanted, self.cells)))

    def task(self, cell: Cell, digest: str | None, origin: str | None = None) -> Task:
        """The cell with what it is run on. digest: of the weights of its model, None where there are none yet."""
        data = cell.model.data
        images, attacker = self.images[data, cell.n], self.attackers.get(data)
        behaviour = self.builder.behaviour(cell.model)
        budget = budget_within(self.config.budget, self.builder.queries_per_image(cell.model))
        config = replace(self.config, budget=budget)
        return Task(self.name, cell, config, images, digest, attacker, behaviour, origin)

    def run(self) -> list[Row]:
        """Every cell's row, and the report on them beside them."""
        rows = self.measured()
        baseline.keep(self.store.folder, self.config.baseline)
        write_report(Results.of(rows, self.store), self.store.folder)
        return rows

    def measured(self) -> list[Row]:
        """Every cell's row; cells that are done are read. Interrupted, it loses at most the cell in flight."""
        self.store.check_writable()
        rows = self._rows()
        if not self._stored(rows):
            self.progress.line("rows were removed or damaged while the grid ran: they are made again")
            rows = replace(self, config=replace(self.config, force=False))._rows()
        return rows

    def preview(self) -> list[Row]:
        """Each cell's status, and its price (see Price); what is done costs no more seconds."""
        rows: list[Row] = []
        for spec, cells in self._by_model():
            there, untrained = bool(self._made_elsewhere(spec, cells)), self.builder.needs_training(spec)
            model = self.builder.build_untrained(spec) if untrained else self.builder.build(spec)
            pace = Pace.of(model, self.images[spec.data, None])
            digest = None if untrained else weights_digest(model)
            cells = applicable(cells, model)
            self._say_price(model, [] if there else [self.task(cell, digest) for cell in cells])
            for cell in cells:
                task = self.task(cell, digest)
                needs_more = beyond(cell.attack.access, model) is not None
                done = there or (not untrained and next(self._good(task.key), None) is not None)
                status = "left out" if needs_more else "done" if done else "must train" if untrained else "to do"
                price = Price.of(cell, len(task.images), pace, task.config.budget)
                if done or needs_more:
                    price = replace(price, seconds=0.0)
                rows.append(Row(status=status, cell=str(cell), **asdict(price)))
        return rows

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for spec, cells in self._by_model():
            try:
                with contained(PluginError, spec.label):
                    there = self._made_elsewhere(spec, cells)
                    for cell, row in there:
                        self.progress.line(f"{cell}: done before, by the same recipe on another machine")
                        rows.append(row)
                    if there:
                        continue
                    model = self.builder.build(spec)
                digest, origin = weights_digest(model), self.builder.origin(spec)
            except StoreError:
                raise
            except Exception as error:  # a stranger's model may die of anything; the other models go on
                rows += [self._keep(failure(self.task(cell, None), error), cell) for cell in cells]
                continue
            cells = applicable(cells, model)
            known = AnswerCache()
            tasks = [self.task(cell, digest, origin) for cell in cells]
            self._say_price(model, tasks)
            own = []
            for place, task in enumerate(tasks):
                reason = beyond(task.cell.attack.access, model)
                own.append(
                    self._keep(left_out(task, reason), task.cell)
                    if reason
                    else self._row(task, model, len(rows) + place, known)
                )
            rows += own
            if cells:
                self._audit(own, model, cells[0].judge(self.config).sees(self.images[spec.data, None]))
        return rows

    def _say_price(self, model: nn.Module, tasks: list[Task]) -> None:
        """What the cells that are not done may cost, where the model is paid for."""
        waiting = [task for task in tasks if next(self._good(task.key), None) is None]
        if text := bill(model, waiting):
            self.progress.line(text)

    def _made_elsewhere(self, spec: ModelSpec, cells: list[Cell]) -> list[tuple[Cell, Row]]:
        """The rows of a model that is trained or fitted, where the grid's folder holds them all for what the same
        recipe gave on another machine, and not all for what it gave here; otherwise none.
        """
        origin = None if self.config.force else self.builder.origin(spec)
        if origin is None:
            return []
        untrained = self.builder.needs_training(spec)
        model = self.builder.build_untrained(spec) if untrained else self.builder.build(spec)
        tasks = [self.task(cell, None if untrained else weights_digest(model)) for cell in applicable(cells, model)]
        if not untrained and all(any(self._good(task.key)) for task in tasks):
            return []
        wanted = [Row(plain({"definition": task.definition})).of_cell(WEIGHTS) for task in tasks]
        made: dict[str | None, dict[str, Row]] = {}
        for row in sorted(self.store.rows(), key=lambda row: row.created, reverse=True):
            if row.ok and row.get("origin") == origin and SAVED[self.config.save] <= row.array_names:
                made.setdefault(row.definition["weights_digest"], {}).setdefault(row.of_cell(WEIGHTS), row)
        for there in made.values():
            if wanted and all(cell in there for cell in wanted):
                return [(task.cell, there[cell]) for task, cell in zip(tasks, wanted, strict=True)]
        return []

    def _by_model(self) -> Iterator[tuple[ModelSpec, list[Cell]]]:
        for _, cells in groupby(self.cells, key=lambda cell: id(cell.model)):
            group = list(cells)
            yield group[0].model, group

    def _row(self, task: Task, model: nn.Module, place: int, known: AnswerCache) -> Row:
        """The task's row: the stored one where it is good, otherwise a new one."""
        if kept := self._resumed(task):
            return kept
        cell, count = task.cell, len(self.cells)
        part = Part(self.progress, f"{place + 1}/{count} {cell}", place / count, 1 / count)
        return self._keep(execute(task, model, known=known, progress=part), cell)

    def _resumed(self, task: Task) -> Row | None:
        """The row of a cell that was done before; a neighbour's is copied."""
        for store, row in self._good(task.key):
            with suppress(StoreError):  # it is there no more
                own = row if store is self.store else self.store.take(row, store, grid=self.name)
                self.progress.line(f"{task.cell}: done before" + (f", in {store.folder}" if own is not row else ""))
                return own
        return None

    def _keep(self, outcome: Outcome, cell: Cell) -> Row:
        """Store a row, and say how its cell ended."""
        made = outcome.row
        row = self.store.write(made.key, made, outcome.arrays)
        if not made.ok:
            self.progress.line(f"{cell}: {made.why}" if made.left_out else f"{cell}: FAILED, {made.failure}")
            return made
        clean, robust = 100 * made.results["clean_accuracy"], 100 * made.results["robust_accuracy"]
        self.progress.line(f"{cell}: clean {clean:.1f} %, robust {robust:.1f} % ({made.results['seconds']:.1f} s)")
        return row

    def _good(self, key: str) -> Iterator[tuple[Store, Row]]:
        """The good rows of that name, with all that is to be saved: the grid's own, then those of its neighbours."""
        wanted = SAVED[self.config.save]
        for store in () if self.config.force else (self.store, *self.neighbours):
            row = store.read(key)
            if done(row) and wanted <= row.array_names:
                yield store, row

    def _stored(self, rows: list[Row]) -> bool:
        """Whether the good ones among them are all there still."""
        return all(not row.ok or self.store.done(row.key) for row in rows)

    def _audit(self, rows: list[Row], model: nn.Module, images: Source) -> None:
        """Audit one model's rows; what dies of it stops no grid, and there is then no audit."""
        try:
            for audit in audit_and_keep(rows, self.store, model, images):
                for each in audit.findings:
                    if each.finding.status is not Status.SOUND:
                        self.progress.line(f"audit, {each.threat}: {each.finding.check}: {each.finding.evidence}")
        except StoreError:
            if self._stored(rows):
                raise  # otherwise they are made again, and audited then
        except Exception as error:  # a stranger's model may die of anything
            self.progress.line(f"the audit FAILED, {type(error).__name__}: {error}")
