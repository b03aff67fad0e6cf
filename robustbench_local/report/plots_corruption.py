"""Plots of corruptions: accuracy over severity, and corruption by model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robustbench_local.core.escaping import visible
from robustbench_local.report.corruption import CorruptionLine, CorruptionTable
from robustbench_local.report.drawing import COLOURS, MARKS, dashes, heat, in_percent, panels, reach, short, style
from robustbench_local.report.picture import FEWEST, MOST, Picture
from robustbench_local.report.svg import svg
from robustbench_local.report.table import Rate
from robustbench_local.report.text import percent, slug
from robustbench_local.report.words import defense

_MANY = 40  # lines of a heat map


def corruption_plots(table: CorruptionTable) -> list[Picture]:
    """Those that the table has figures for; a table of fewer than 20 images has none."""
    if table.images < FEWEST:
        return []
    with style():
        return [*_severity_curves(table), *_by_corruption(table)]


def _severity_curves(table: CorruptionTable) -> Iterator[Picture]:
    if len(table.severities) < 2:
        return
    lines = table.lines[:MOST]
    figure, (axes,) = panels(1, width=5.6, height=4.0)
    for place, line in enumerate(lines):
        aside = 0.03 * (place - (len(lines) - 1) / 2)  # so that intervals do not cover each other
        rates = [(level, line.accuracy(severity=level)) for level in table.severities]
        known = [(level + aside, rate) for level, rate in rates if rate]
        if line.clean is not None and known:
            known.insert(0, (aside, Rate(line.clean, line.clean, line.clean)))
        axes.errorbar(
            [level for level, _ in known],
            [rate.value for _, rate in known],
            yerr=np.hstack([reach(rate) for _, rate in known]) if known else None,
            color=COLOURS[place],
            marker=MARKS[place],
            elinewidth=1,
            linestyle=dashes(place),
            label=_model(line, table),
        )
    axes.set(xlabel="severity", ylim=(-0.02, 1.02))
    axes.set_xticks([0, *table.severities], ["clean", *map(str, table.severities)])
    in_percent(axes.yaxis)
    figure.legend(loc="outside lower center", ncols=2)
    yield Picture(
        _name(table, "severity"),
        svg(figure),
        f"Accuracy over the severity of corruptions, of {len(lines)} models; the table holds the means.",
        "Accuracy over severity: the mean over all corruptions, with its 95 % interval.",
        (),
    )


def _by_corruption(table: CorruptionTable) -> Iterator[Picture]:
    lines, names = table.lines[:_MANY], table.corruptions
    if len(names) < 3:
        return
    rates = [[line.accuracy(corruption=name) for name in names] for line in lines]
    values = np.array([[rate.value if rate else np.nan for rate in row] for row in rates])
    figure, _ = heat(values, [_model(line, table) for line in lines], list(map(visible, names)))
    worst = [(_model(line, table), *line.worst) for line in lines if line.worst]
    said = "; ".join(f"{model}: {visible(name)}, {percent(1 - error)} %" for model, name, error in worst)
    yield Picture(
        _name(table, "corruptions"),
        svg(figure),
        f"Accuracy by corruption. Worst of each model: {said or 'unknown'}.",
        "Accuracy in % under each corruption, the mean over severities.",
        (),
        wide=True,
    )


def _model(line: CorruptionLine, table: CorruptionTable) -> str:
    alone = len({other.model for other in table.lines}) == 1
    return short(defense(line) if alone else f"{visible(line.model)}, {defense(line)}")


def _name(table: CorruptionTable, kind: str) -> str:
    under = [table.under] if table.under else []
    return slug("-".join([table.data, table.split, *under, str(table.images), table.benchmark, kind]))
