"""Plots of rows, as SVG: each is a pure function of a table and the per-sample arrays behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from robustbench_local.report.detail import detail
from robustbench_local.report.drawing import COLOURS, MARKS, dashes, heat, in_percent, panels, reach, style
from robustbench_local.report.picture import FEWEST, MOST, Picture, in_reach, model_of, name_of
from robustbench_local.report.plots_search import by_queries, by_steps, convergence, falling
from robustbench_local.report.results import Results
from robustbench_local.report.svg import LINE, SOFT, svg
from robustbench_local.report.table import Table, identity_of
from robustbench_local.report.text import percent
from robustbench_local.report.words import within
from robustbench_local.storage.row import done

_MANY = 40  # lines of a heat map


def plots(tables: Sequence[Table], results: Results) -> list[Picture]:
    """Every plot that these tables have the figures for; tables of fewer than 20 images have none."""
    found: list[Picture] = []
    tables = [table for table in tables if table.images >= FEWEST]
    with style():
        for table in tables:
            for draw in (_heat, _clean_robust, _by_class, by_queries, by_steps, convergence):
                found += draw(table, results)
        found += _by_eps(tables, results)
    return found


def _heat(table: Table, results: Results) -> Iterator[Picture]:
    lines = table.lines[:_MANY]
    places, said = in_reach(table)
    names = [*(str(table.attacks[place]) for place in places), table.worst[-1]]
    if len(lines) < 2 or len(names) < 3:
        return
    rates = [[*(robust[place] for place in places), line.worst[-1]] for line in lines for robust in [line.robust]]
    values = np.array([[rate.value if rate else np.nan for rate in row] for row in rates])
    figure, axes = heat(values, [model_of(line, table) for line in lines], names)
    axes.axvline(len(names) - 1.5, color=SOFT, linewidth=1)
    yield Picture(
        name_of("heat", table),
        svg(figure),
        f"Heat map of robust accuracy, {len(lines)} models by {len(places)} attacks; the table has the figures.",
        "Robust accuracy in %, attack by defense. A row is as robust as its least cell or less: the last column takes"
        f" the worst per image.{said}",
        (table,),
        wide=True,
    )


def _clean_robust(table: Table, results: Results) -> Iterator[Picture]:
    lines = [line for line in table.lines if line.worst[-1] and line.clean][:MOST]
    if len(lines) < 2:
        return
    figure, (axes,) = panels(1, width=5.6, height=4.0)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, zorder=0)
    for place, line in enumerate(lines):
        assert line.clean and line.worst[-1]
        x, y = line.clean, line.worst[-1]
        axes.errorbar(
            x.value,
            y.value,
            xerr=reach(x),
            yerr=reach(y),
            fmt=MARKS[place],
            color=COLOURS[place],
            elinewidth=1,
            label=model_of(line, table),
            markersize=6,
            clip_on=False,
        )
    low = min(line.clean.low for line in lines if line.clean)
    axes.set(
        xlabel="clean accuracy", ylabel="robust accuracy, at most", xlim=(max(0, low - 0.05), 1), ylim=(-0.02, 1.02)
    )
    in_percent(axes.xaxis, axes.yaxis)
    figure.legend(loc="outside lower center", ncols=2)
    yield Picture(
        name_of("clean-robust", table),
        svg(figure),
        f"Clean against robust accuracy of {len(lines)} models, with intervals; the table holds the figures.",
        "What robustness costs: clean against robust accuracy, each with its 95 % interval. On the grey line an"
        " attacker changes nothing.",
        (table,),
    )


def _by_class(table: Table, results: Results) -> Iterator[Picture]:
    known = [(line, detail(line, table, results).classes) for line in table.lines[:6]]
    known = [(line, classes) for line, classes in known if 2 <= len(classes) <= 20]
    if not known:
        return
    figure, every = panels(len(known), height=0.7 + 0.2 * len(known[0][1]))
    for axes, (line, classes) in zip(every, known, strict=True):
        heights = range(len(classes))
        robust, clean = [one.robust.value for one in classes], [one.clean.value for one in classes]
        axes.hlines(heights, robust, clean, color=LINE, linewidth=3)
        axes.plot(clean, heights, "o", color=SOFT, markerfacecolor="none", label="clean")
        axes.plot(robust, heights, "o", color=COLOURS[0], label="robust")
        axes.set_title(model_of(line, table), fontsize=9)
        axes.tick_params(labelbottom=True)
        axes.set_yticks(heights, [one.name for one in classes])
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100%"])
    every[0].invert_yaxis()
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    worst = [(min(classes, key=lambda one: one.robust.value), line) for line, classes in known]
    yield Picture(
        name_of("classes", table),
        svg(figure),
        "Clean and robust accuracy by class. Weakest class of each model: "
        + "; ".join(f"{model_of(line, table)}, {one.name} at {percent(one.robust.value)} %" for one, line in worst),
        "The mean hides the weakest class: clean and worst-case accuracy of each class, and the gap between them.",
        (table,),
        wide=len(known) > 1,
    )


def _by_eps(tables: Sequence[Table], results: Results) -> Iterator[Picture]:
    """Tables that differ in eps only; minimum-norm attacks say it for every eps at once."""
    groups: dict[Any, list[tuple[float, Table]]] = defaultdict(list)
    for table in tables:
        norm, _, rest = table.threat.partition(":")
        if rest:
            same = next(row for line in table.lines for row in line.rows if row is not None).of_images()
            groups[norm, table.grid, same, table.stochastic].append((_eps(table), table))
    for group in groups.values():
        group.sort(key=lambda pair: pair[0])
        curves = _nearest(group, results)
        if len(group) < 2 and not curves:
            continue
        last = group[-1][1]
        figure, (axes,) = panels(1, width=5.6, height=4.0)
        lines = {identity_of(line): line for _, table in group for line in table.lines}
        names = {model: model_of(line, last) for model, line in islice(lines.items(), MOST)}
        for place, (model, name) in enumerate(names.items()):
            own = [(eps, line) for eps, table in group for line in table.lines if identity_of(line) == model]
            points = [(0.0, line.clean) for _, line in own[:1] if len(group) > 1]
            known = [(eps, rate) for eps, rate in [*points, *((eps, line.worst[-1]) for eps, line in own)] if rate]
            if known:
                axes.errorbar(
                    [eps for eps, _ in known],
                    [rate.value for _, rate in known],
                    yerr=np.array([reach(rate)[:, 0] for _, rate in known]).T,
                    color=COLOURS[place],
                    marker=MARKS[place],
                    elinewidth=1,
                    label=name,
                    linestyle=dashes(place),
                )
            for attack, x, y in curves.get(model, ()):
                axes.step(x, y, where="post", color=COLOURS[place], linewidth=1, alpha=0.8, label=f"{name}, {attack}")
        axes.set(xlabel=f"radius of the {within(last.threat).partition(' of ')[0]}", ylim=(-0.02, 1.02))
        axes.set_xlim(0, group[-1][0] * 1.25)
        in_percent(axes.yaxis)
        figure.legend(loc="outside lower center", ncols=2)
        yield Picture(
            name_of("eps", last, norm_only=True),
            svg(figure),
            f"Robust accuracy over eps of {len(names)} models; the tables hold the figures of each eps.",
            "Robust accuracy over the attacker's radius. Points: worst case over the attacks of that radius, with its"
            " interval. Thin steps: off the distances that a minimum-norm attack found.",
            tuple(table for _, table in group),
        )


def _nearest(group: Sequence[tuple[float, Table]], results: Results) -> dict[str, list[Any]]:
    """{model: (attack, eps, share still right)} of the minimum-norm attacks."""
    found: dict[str, list[Any]] = defaultdict(list)
    for eps, table in group:
        for line in table.lines:
            for attack, row in zip(table.attacks, line.rows, strict=True):
                if done(row) and not table.stochastic and row.minimises:
                    arrays = results.arrays(row, "clean", "robust", "distance")
                    clean, distance = arrays["clean"], arrays["distance"]
                    hit = clean & (~arrays["robust"] | (distance > eps))  # an image that is robust inside was not found
                    found[identity_of(line)].append((str(attack), *falling(clean, ~hit, distance, 2 * eps)))
    return found


def _eps(table: Table) -> float:
    return next(row.eps for line in table.lines for row in line.rows if row is not None)
