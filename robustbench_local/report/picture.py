"""A plot as a page shows it, and what all plots name in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustbench_local.report.drawing import short
from robustbench_local.report.table import Line, Table
from robustbench_local.report.text import slug
from robustbench_local.report.words import defense

FEWEST = 20  # images, below which a curve is all steps
MOST = 8  # models that one plot can tell apart
ATTACKS = 24  # that one plot has room for


@dataclass(frozen=True)
class Picture:
    """A plot: file name without ending, text for who cannot see it, and the tables that it shows.

    wide: it wants the whole width of a page.
    """

    name: str
    svg: str
    alt: str
    caption: str
    tables: tuple[Table, ...]
    wide: bool = False


def in_reach(table: Table) -> tuple[list[int], str]:
    """Places of the attacks that a plot has room for, the strongest by their mean over models, and a sentence that says
    so; all, and "", where they are few.
    """
    if len(table.attacks) <= ATTACKS:
        return list(range(len(table.attacks))), ""
    columns = zip(*(line.robust for line in table.lines), strict=True)
    means = [np.mean([1.0 if rate is None else rate.value for rate in column]) for column in columns]
    places = sorted(np.argsort(means, kind="stable")[:ATTACKS].tolist())
    return places, f" The strongest {ATTACKS} of {len(table.attacks):,} attacks."


def model_of(line: Line, table: Table) -> str:
    """As short as the table allows: the model is named where there are several."""
    alone = len({other.model for other in table.lines}) == 1
    return short(defense(line) if alone else f"{line.model}, {defense(line)}")


def name_of(kind: str, table: Table, norm_only: bool = False) -> str:
    threat = table.threat.partition(":")[0] if norm_only else table.threat
    parts = [table.grid, table.data, table.split, threat, str(table.images), table.targets]
    return slug("-".join([*filter(None, parts), *["random"] * table.stochastic, kind]))
