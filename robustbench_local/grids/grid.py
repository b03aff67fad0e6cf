"""A grid: cells -> rows -> table. What is done is never done again, and one failing cell never stops the others."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_local.audit.escalation import audit_and_keep
from robustbench_local.audit.finding import Status
from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Location
from robustbench_local.core.containment import contained, guarded
from robustbench_local.core.defense import call, is_stochastic, undefended
from robustbench_local.core.device import pick_device
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, PluginError, StoreError
from robustbench_local.core.progress import Progress
from robustbench_local.core.source import Source
from robustbench_local.core.trace import others
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.judge import JUDGED
from robustbench_local.grids.environment import environment
from robustbench_local.grids.plan import Cell, as_list, read_config, resolve
from robustbench_local.metrics.classification import answers
from robustbench_local.metrics.summary import summarise
from robustbench_local.report import baseline
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row, row_key
from robustbench_local.storage.store import Store
from robustbench_local.training.builder import ModelBuilder, ModelSpec

_TRIAL = 32  # images in the batch that a dry run times
_BLOCK = 4096  # images turned into floats at a time


@guarded()
@checked()
def run_grid(grid: Location, *, progress: Progress | None = None, **overrides: Any) -> list[Row]:
    """Run a packaged grid, or the one in a YAML file, and return its rows, in the order of the cells.

    overrides replace what the file says (n=500, attacks=["fgsm"]); conf.schema.GridConfig lists the keys. A row has
    status "ok", with its results, or "error", with its error. With dry_run=True nothing runs, and the status is "done",
    "to do" or "must train". Rows and tables are written to results/<name of the grid>/.
    Raises ConfigError, PluginError, ThreatError, ModelError or DataError before anything runs, and StoreError where
    rows cannot be written.
    """
    opened = Grid(str(grid), overrides, progress or Progress())
    return opened.preview() if opened.config.dry_run else opened.run()


class Grid:
    """A grid, resolved: config, cells, images per data set, and the store of its rows."""

    def __init__(self, name: str, overrides: dict[str, Any], progress: Progress) -> None:
        self.name = Path(name).stem
        self.config = read_config(name, overrides)
        self.progress = progress
        self.device = pick_device(self.config.device)
        self.store = Store(Path(self.config.results).expanduser() / self.name)
        self.neighbours = self.store.neighbours()
        self.builder = ModelBuilder(self.device, self.config.source, progress)
        self.cells = resolve(self.config, self.builder)
        wanted = {(str(data), None) for data in as_list(self.config.data)} | {(c.model.data, c.n) for c in self.cells}
        self.images = {(data, n): self._open(data, n) for data, n in wanted}
        for cell in self.cells:
            cell.attack.sources()  # what an attack reads must be there before anything runs
        learning = {cell.model.data for cell in self.cells if cell.attack.own_images}
        self.attackers = {data: self._open_attacker(data) for data in learning}

    def _open(self, data: str, n: int | None) -> Images:
        config = self.config
        return open_data(
            data,
            split=config.split,
            source=config.source,
            n=n or config.n,
            ids=config.ids,
            sample=config.sample,
            seed=int(as_list(config.seeds)[0]),
            device=self.device,
        )

    def _open_attacker(self, data: str) -> Images:
        """What an attacker may learn from: the training split, without what is judged."""
        whole = open_data(data, split="train", source=self.config.source, device=self.device)
        if self.config.split != "train":
            return whole
        left = whole.ids[~torch.isin(whole.ids, self.images[data, None].ids)].tolist()
        if not left:
            raise ConfigError(f"every training image of {data} is judged, and an attack learns from others: give n")
        return open_data(data, split="train", source=self.config.source, ids=left, device=self.device)

    def _definition(self, cell: Cell, digest: str | None) -> dict[str, Any]:
        data = cell.model.data
        behaviour = self.builder.behaviour(cell.model)
        return cell.definition(self.images[data, cell.n], digest, self.config, self.attackers.get(data), behaviour)

    def run(self) -> list[Row]:
        """Every cell's row; cells that are done are read. Interrupted, it loses at most the cell in flight."""
        self.store.check_writable()
        rows = self._rows()
        if not self._stored(rows):
            self.progress.line("rows were removed or damaged while the grid ran: they are made again")
            self.config = replace(self.config, force=False)
            rows = self._rows()
        baseline.keep(self.store.folder, self.config.baseline)
        write_report(Results.of(rows, self.store), self.store.folder)
        return rows

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for plan, cells in self._by_model():
            try:
                with contained(PluginError, plan.label):
                    model = self.builder.build(plan)
                digest = weights_digest(model)
            except StoreError:
                raise
            except Exception as error:  # a stranger's model may die of anything; the other models go on
                rows += [self._failed(cell, None, error, 0.0) for cell in cells]
                continue
            cells = _sensible(cells, model)
            known = AnswerCache()
            own = [self._row(cell, model, digest, len(rows) + place, known) for place, cell in enumerate(cells)]
            rows += own
            if cells:
                self._audit(own, model, cells[0].judge(self.config).sees(self.images[plan.data, None]))
        return rows

    def _stored(self, rows: list[Row]) -> bool:
        """Whether the good ones among them are all there still."""
        return all(row["status"] != "ok" or self.store.done(row["key"]) for row in rows)

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

    def preview(self) -> list[Row]:
        """Each cell's state and cost: status, cell, forwards and backwards per image and, in all, before; seconds.

        Of a random model every query counts as often as it draws. The judge's own questions are among the seconds.
        """
        rows: list[Row] = []
        for plan, cells in self._by_model():
            images = self.images[plan.data, None]
            training = self.builder.needs_training(plan)
            model = self.builder.build_untrained(plan) if training else self.builder.build(plan)
            forward, backward, classes = _time(model, images)
            digest = None if training else weights_digest(model)
            random = is_stochastic(model)
            for cell in _sensible(cells, model):
                eot, draws = (cell.eot, cell.draws) if random else (1, 1)
                key = row_key(self._definition(cell, digest))
                done = not training and self._done(key, take=False) is not None
                forwards, backwards = (eot * count for count in cell.attack.cost(classes, cell.threat.norm))
                n = len(self.images[plan.data, cell.n])
                before = cell.attack.prepare_cost(classes, cell.threat.norm)
                passes = n * (forwards + JUDGED * draws) + before[0], n * backwards + before[1]
                rows.append(
                    {
                        "status": "must train" if training else "done" if done else "to do",
                        "cell": str(cell),
                        "forwards": forwards,
                        "backwards": backwards,
                        "prepared_forwards": before[0],
                        "prepared_backwards": before[1],
                        "seconds": 0.0 if done else passes[0] * forward + passes[1] * backward,
                    }
                )
        return rows

    def _by_model(self) -> Iterator[tuple[ModelSpec, list[Cell]]]:
        for _, cells in groupby(self.cells, key=lambda cell: id(cell.model)):
            group = list(cells)
            yield group[0].model, group

    def _row(self, cell: Cell, model: nn.Module, digest: str, place: int, known: AnswerCache) -> Row:
        """The cell's row: the stored one where it is good, otherwise a new one."""
        images = self.images[cell.model.data, cell.n]
        definition = self._definition(cell, digest)
        key = row_key(definition)
        if done := self._done(key):
            self.progress.line(f"{cell}: done before" + (f", in {done[1]}" if done[1] != self.store.folder else ""))
            return done[0]
        part = _Part(
            self.progress, f"{place + 1}/{len(self.cells)} {cell}", place / len(self.cells), 1 / len(self.cells)
        )
        started = time.monotonic()
        try:
            own = self.attackers.get(cell.model.data)
            judge = cell.judge(self.config)
            verdict = judge(model, images, cell.attack, cell.threat, progress=part, attacker=own, known=known)
            results = summarise(verdict, images.classes)
        except Exception as error:  # an attack may die of anything; the other cells go on
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return self._failed(cell, digest, error, time.monotonic() - started)
        row = {"status": "ok", "results": results, **self._context(definition)}
        arrays = _arrays(verdict)
        if self.config.save is not None:
            arrays |= _scores(verdict)
        if self.config.save == "x_adv":
            arrays |= _kept(verdict, judge.sees(images))
        row = self.store.write(key, row, arrays)
        self.progress.line(
            f"{cell}: clean {100 * verdict.clean_accuracy:.1f} %, robust {100 * verdict.robust_accuracy:.1f} %"
            f" ({verdict.seconds:.1f} s)"
        )
        return row

    def _done(self, key: str, take: bool = True) -> tuple[Row, Path] | None:
        """The good row of a cell that was done before, with all that is to be saved, and who had it: the grid itself
        or a neighbour, from whom it is then taken.
        """
        wanted = SAVED[self.config.save]
        for store in () if self.config.force else (self.store, *self.neighbours):
            row = store.read(key)
            if row is None or row["status"] != "ok" or not wanted <= row["arrays"].keys():
                continue
            if store is self.store or not take:
                return row, store.folder
            with suppress(StoreError):  # it is there no more
                return self.store.take(row, store, grid=self.name), store.folder
        return None

    def _failed(self, cell: Cell, digest: str | None, error: Exception, seconds: float) -> Row:
        definition = self._definition(cell, digest)
        what = {
            "cell": str(cell),
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "seconds": seconds,
        }
        row = {"status": "error", "error": what, **self._context(definition)}
        key = row_key(definition)
        self.store.write(key, row)
        self.progress.line(f"{cell}: FAILED, {what['type']}: {what['message']}")
        return {"key": key, **row}

    def _context(self, definition: dict[str, Any]) -> dict[str, Any]:
        return {"grid": self.name, "definition": definition, "environment": environment(self.device)}


class _Part(Progress):
    """A cell's share of the whole grid's progress."""

    def __init__(self, whole: Progress, label: str, start: float, width: float) -> None:
        self._whole, self._label, self._start, self._width = whole, label, start, width

    def line(self, text: str) -> None:
        self._whole.line(f"{self._label}: {text}")

    def advance(self, what: str, share: float) -> None:
        self._whole.advance(self._label, self._start + self._width * share)


def _sensible(cells: list[Cell], model: nn.Module) -> list[Cell]:
    """Without those that leave random models out, of such; and without the naive cells of a model of which no part
    could be left out: they would only repeat the others.
    """
    chosen = [cell for cell in cells if cell.random_models or not is_stochastic(model)]
    return [cell for cell in chosen if cell.adaptive or undefended(model) is not None]


def _arrays(verdict: Verdict) -> dict[str, npt.NDArray[Any]]:
    """The per-sample arrays of a row, (N, ...)."""
    names = ["labels", "ids", "clean", "robust", "robust_8bit", "forwards", "backwards", "corrupted"]
    names += ["clean_bits", "bits", "bits_8bit", "won"]
    names += ["distance"] if verdict.corrupted is None else []  # a corruption keeps to no ball
    found = {name: getattr(verdict, name) for name in names}
    found |= {f"note_{name}": values for name, values in others(verdict.notes).items()}
    arrays = {name: np.asarray(tensor.cpu().contiguous()) for name, tensor in found.items() if tensor is not None}
    for name, scores in (("clean_predicted", verdict.clean_scores), ("predicted", verdict.scores)):
        arrays[name] = answers(scores.double().cpu().numpy(), scores.shape[1]).astype(np.int16)  # halves may tie
    return arrays


SAVED = {  # the arrays that config.save adds
    None: frozenset[str](),
    "scores": frozenset({"clean_scores", "scores"}),
    "x_adv": frozenset({"clean_scores", "scores", "x_adv", "fingerprint"}),
}


def _scores(verdict: Verdict) -> dict[str, npt.NDArray[Any]]:
    """The log-probabilities, to three digits."""
    return {name: np.asarray(getattr(verdict, name).half().cpu()) for name in ("clean_scores", "scores")}


def _kept(verdict: Verdict, images: Source) -> dict[str, npt.NDArray[Any]]:
    """The adversarial images, and what those they were made from are known by."""
    known = [fingerprint(images[start : start + _BLOCK]) for start in range(0, len(images), _BLOCK)]
    kept = {"x_adv": verdict.x_adv, "fingerprint": torch.cat(known)}
    return {name: np.asarray(tensor.cpu().contiguous()) for name, tensor in kept.items()}


def _time(model: nn.Module, images: Images) -> tuple[float, float, int]:
    """Seconds per image of a forward pass, of a backward pass, and the number of classes; by one small batch."""
    x = images[:_TRIAL]
    draws = Draws(0, images.ids[:_TRIAL])
    best = [math.inf, math.inf]
    for _ in range(2):  # the first pays for what is set up once
        leaf = x.clone().requires_grad_()
        started = _now(x.device)
        logits = call(model, leaf, draws)
        middle = _now(x.device)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf)
        best = [min(best[0], middle - started), min(best[1], _now(x.device) - middle)]
    return best[0] / len(x), best[1] / len(x), logits.shape[1]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
