"""Rows of corruptions -> mean corruption errors, the worst corruption, and curves over severity, a line per model.

All are accuracies and errors on the corrupted images, whether or not the model is right on the clean ones, as
CIFAR-10-C counts them. Pure functions of rows; a mean over cells of which one failed or is missing is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.escaping import visible
from robustbench_local.metrics.paired import Rank, ranks
from robustbench_local.metrics.rates import wilson
from robustbench_local.report.labels import Label, attack_labels, defense_labels
from robustbench_local.report.table import Rate, SharesOf, met_before, robust_tables
from robustbench_local.storage.row import Row, done, telling_none_apart

Condition = tuple[str, int, int]  # corruption, severity, seed
RightOf = Callable[[Row], npt.NDArray[np.float64] | None]


@dataclass(frozen=True)
class CorruptionLine:
    """One defended model. cells: its row for each (corruption, severity, seed) of the table, None where missing.

    rank: by the mean accuracy, among the table's lines that have one; None too where no arrays were read.
    """

    model: str
    defense: Label
    images: int
    cells: dict[Condition, Row | None]
    identity: str
    rank: Rank | None = None

    @property
    def clean(self) -> float | None:
        return next((row.results["clean_accuracy"] for row in self.cells.values() if done(row)), None)

    def accuracy(self, *, corruption: str | None = None, severity: int | None = None) -> Rate | None:
        """The mean accuracy on corrupted images over these cells, each counting the same, and its 95 % interval.

        The interval is Wilson's for as many images as one cell has: the cells share their images, and a mean over cells
        of an image's 0s and 1s varies at most as a coin does.
        """
        chosen = [
            row
            for (name, level, _), row in self.cells.items()
            if corruption in (None, name) and severity in (None, level)
        ]
        good = [row.results["corruption_accuracy"] for row in chosen if done(row)]
        if not good or len(good) < len(chosen):
            return None
        mean = sum(good) / len(good)
        return Rate(mean, *wilson(mean * self.images, self.images))

    @property
    def mean_error(self) -> float | None:
        """The plain mean over all cells: mean corruption error as Hendrycks et al. (AugMix, 2020) have it on CIFAR."""
        accuracy = self.accuracy()
        return None if accuracy is None else 1 - accuracy.value

    @property
    def worst(self) -> tuple[str, float] | None:
        """The corruption with the largest mean error over severities, and that error."""
        errors = [(name, self.accuracy(corruption=name)) for name in _first(self.cells, 0)]
        known = [(name, 1 - accuracy.value) for name, accuracy in errors if accuracy]
        return max(known, key=lambda pair: pair[1]) if len(known) == len(errors) and known else None

    def relative_to(self, baseline: CorruptionLine) -> float | None:
        """mCE of Hendrycks and Dietterich 2019: the mean over corruptions of this model's error over the baseline's.

        The errors of a corruption are summed over severities first. None where the baseline errs nowhere.
        """
        shares = []
        for name in _first(self.cells, 0):
            own, other = self.accuracy(corruption=name), baseline.accuracy(corruption=name)
            if own is None or other is None or other.value == 1:
                return None
            shares.append((1 - own.value) / (1 - other.value))
        return sum(shares) / len(shares) if shares else None


@dataclass(frozen=True)
class CorruptionTable:
    """Models over the same images under the corruptions of one published set, or under others that rows have."""

    data: str
    split: str
    images: int
    benchmark: str
    under: str | None
    lines: tuple[CorruptionLine, ...]
    baseline: str | None
    notes: tuple[str, ...]

    @property
    def corruptions(self) -> list[str]:
        return _first(self.lines[0].cells, 0)

    @property
    def severities(self) -> list[int]:
        return sorted(set(_first(self.lines[0].cells, 1)))

    @property
    def title(self) -> str:
        levels = ", ".join(map(str, self.severities))
        parts = [f"{self.data} {self.split}", self.benchmark, f"{len(self.corruptions)} corruptions"]
        parts += [f"severity {levels}", f"{self.images} images"] + [f"under {self.under}"] * bool(self.under)
        return ", ".join(parts)

    def relative(self, line: CorruptionLine) -> float | None:
        """mCE relative to the baseline of the same architecture."""
        found = (each for each in self.lines if each.defense.name == self.baseline and each.model == line.model)
        base = next(found, None)
        return None if base is None else line.relative_to(base)


@dataclass(frozen=True)
class Correlation:
    """Over n models: their accuracy under a set of corruptions, and their robust accuracy within a threat model."""

    data: str
    benchmark: str
    threat: str
    n: int
    spearman: float
    pearson: float


def corruption_tables(
    rows: Iterable[Row], baseline: str | None = None, right: RightOf | None = None
) -> list[CorruptionTable]:
    """A table for each published set and selection of images; lines by mean corruption error, the smallest first.

    right(row) -> (N,): whether each corrupted image is classified correctly, or None: ranks are made of it.
    """
    natural = [row for row in rows if row.corrupts]
    groups = _by(lambda row: (row.definition["corruption"], row.of_images()), natural)
    return [_table(group, baseline, right) for _, group in sorted(groups.items())]


def correlations(rows: Sequence[Row], shares_of: SharesOf) -> list[Correlation]:
    """Of each set of corruptions with each threat model, over the models that have both; of 3 models and more.

    Robust accuracy is the per-sample worst case over the attacks of the grid. A constant has no correlation: those of
    equal accuracies are left out.
    """
    from scipy import stats  # here: it takes longer to load than tables to make

    found = []
    tables = corruption_tables(rows)
    attacked = robust_tables(rows, shares_of) if tables else []
    for table in tables:
        natural = {line.identity: 1 - line.mean_error for line in table.lines if line.mean_error is not None}
        robust: dict[str, dict[str, float]] = defaultdict(dict)
        for other in attacked:
            for line in other.lines:
                row = next(filter(done, line.rows), None)
                if row is not None and line.worst[-1] is not None and visible(row.definition["data"]) == table.data:
                    aim = f", targets: {other.targets}" if other.targets else ""
                    within = f"{other.within}, {other.images} images{aim}"
                    robust[within][row.of_model()] = line.worst[-1].value
        for threat, accuracies in robust.items():
            both = [(natural[key], accuracies[key]) for key in natural if key in accuracies]
            if len(both) < 3 or any(len(set(column)) == 1 for column in zip(*both, strict=True)):
                continue
            a, b = zip(*both, strict=True)
            spearman, pearson = float(stats.spearmanr(a, b).statistic), float(stats.pearsonr(a, b).statistic)
            found.append(Correlation(table.data, table.benchmark, threat, len(both), spearman, pearson))
    return found


def _table(rows: list[Row], baseline: str | None, right: RightOf | None) -> CorruptionTable:
    groups = _by(Row.of_model, rows)
    names = _names(rows, telling_none_apart(groups.values()))
    cells = sorted({_cell(row, names) for row in rows})
    lines = []
    labels = defense_labels([group[0] for group in groups.values()])
    for label, (model, group) in zip(labels, groups.items(), strict=True):
        found = {_cell(row, names): row for row in group}
        about = group[0].definition
        images = next((row.results["n"] for row in rows if done(row)), 0)
        each = {cell: found.get(cell) for cell in cells}
        lines.append(CorruptionLine(visible(about["model"]), label, images, each, model))
    if right is not None:
        lines = _ranked(lines, right)
    lines.sort(key=lambda line: (line.mean_error is None, line.mean_error or 0.0, line.model, str(line.defense)))
    about = rows[0].definition
    return CorruptionTable(
        visible(about["data"]),
        visible(about["split"]),
        lines[0].images,
        visible(about["corruption"]),
        met_before(rows[0]),
        tuple(lines),
        baseline,
        tuple(_notes(lines)),
    )


def _ranked(lines: Sequence[CorruptionLine], right: RightOf) -> list[CorruptionLine]:
    """With ranks: paired tests of each image's share of corruptions under which it is classified correctly."""
    means = {}
    for line in lines:
        shares = [right(row) for row in line.cells.values() if done(row)]
        good = [each for each in shares if each is not None]
        if line.mean_error is not None and len(good) == len(line.cells):
            means[line.identity] = np.mean(good, axis=0)
    found = ranks(means)
    return [replace(line, rank=found.get(line.identity)) for line in lines]


def _names(rows: list[Row], alike: Sequence[str]) -> Callable[[Row], str]:
    """What each row's corruption is called: its name, and that by which namesakes differ besides severity and seed."""
    labels = attack_labels([_of_any_severity(row) for row in rows], (*alike, "seed"))
    named = {row.key: str(label) for row, label in zip(rows, labels, strict=True)}
    return lambda row: named[row.key]


def _of_any_severity(row: Row) -> Row:
    rest = {key: value for key, value in row.definition["attack_settings"].items() if key != "severity"}
    return row.changed(attack_settings=rest)


def _cell(row: Row, name: Callable[[Row], str]) -> Condition:
    return name(row), row.definition["attack_settings"]["severity"], row.definition["seed"]


def _notes(lines: Sequence[CorruptionLine]) -> Iterator[str]:
    for line in lines:
        for (name, severity, _), row in line.cells.items():
            if not done(row):
                why = "not run" if row is None else row.why
                yield f"{line.model} / {line.defense}, {name} {severity}: {visible(why)}"


def _by(key: Callable[[Row], Any], rows: Iterable[Row]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _first(cells: Iterable[Condition], place: int) -> list[Any]:
    """The different values at one place of the cells, in their order."""
    return list(dict.fromkeys(cell[place] for cell in cells))
