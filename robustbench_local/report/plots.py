"""Plots of rows, as SVG: each is a pure function of a table and the per-sample arrays behind it."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from robustbench_local.errors import RobustBenchError
from robustbench_local.plugins import find_attack
from robustbench_local.report.corruption import CorruptionTable
from robustbench_local.report.detail import detail
from robustbench_local.report.drawing import COLOURS, LINE, MARKS, SOFT, TEAL, label_below, panels, style, svg
from robustbench_local.report.results import Results
from robustbench_local.report.table import Label, Line, Rate, Table, done
from robustbench_local.report.text import percent, slug
from robustbench_local.report.words import defense, within
from robustbench_local.store import Row

FEWEST = 20  # images, below which a curve is all steps
MOST = 8  # models that one plot can tell apart
_MANY = 40  # lines of a heat map
_LONG = 200  # passes, beyond which their axis is logarithmic


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


def plots(tables: Sequence[Table], results: Results) -> list[Picture]:
    """Every plot that these tables have the figures for; tables of fewer than 20 images have none."""
    found: list[Picture] = []
    tables = [table for table in tables if table.images >= FEWEST]
    with style():
        for table in tables:
            for draw in (_heat, _clean_robust, _by_class, _by_queries, _by_steps):
                found += draw(table, results)
        found += _by_eps(tables, results)
    return found


def _heat(table: Table, results: Results) -> Iterator[Picture]:
    lines = table.lines[:_MANY]
    names = [*map(str, table.attacks), table.worst[-1]]
    if len(lines) < 2 or len(names) < 3:
        return
    rates = [[*line.robust, line.worst[-1]] for line in lines]
    values = np.array([[rate.value if rate else np.nan for rate in row] for row in rates])
    figure, (axes,) = panels(1, width=9.3, height=1.0 + 0.34 * len(lines))
    axes.imshow(values, cmap=TEAL, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        missing = np.isnan(value)
        colour = SOFT if missing else "#ffffff" if value > 0.62 else "#101316"
        axes.text(j, i, "–" if missing else percent(value), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=30, ha="right")
    axes.set_yticks(range(len(lines)), [_model(line, table) for line in lines])
    axes.axvline(len(names) - 1.5, color=SOFT, linewidth=1)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    yield Picture(
        _name("heat", table), svg(figure),
        f"Heat map of robust accuracy, {len(lines)} models by {len(table.attacks)} attacks; the table has the figures.",
        "Robust accuracy in %, attack by defense. A row is as robust as its palest cell or less: the last column takes"
        " the worst per image.",
        (table,), wide=True,
    )  # fmt: skip


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
            x.value, y.value, xerr=_reach(x), yerr=_reach(y), fmt=MARKS[place], color=COLOURS[place],
            elinewidth=1, label=_model(line, table), markersize=6,
        )  # fmt: skip
    low = min(line.clean.low for line in lines if line.clean)
    axes.set(
        xlabel="clean accuracy", ylabel="robust accuracy, at most", xlim=(max(0, low - 0.05), 1.01), ylim=(-0.02, 1.02)
    )
    _in_percent(axes, both=True)
    figure.legend(loc="outside lower center", ncols=2)
    yield Picture(
        _name("clean-robust", table), svg(figure),
        f"Clean against robust accuracy of {len(lines)} models, with intervals; the table holds the figures.",
        "What robustness costs: clean against robust accuracy, each with its 95 % interval. On the grey line an"
        " attacker changes nothing.",
        (table,),
    )  # fmt: skip


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
        axes.set_title(_model(line, table), fontsize=9)
        axes.tick_params(labelbottom=True)
        axes.set_yticks(heights, [one.name for one in classes])
        axes.set_xlim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    every[0].invert_yaxis()
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    worst = [(min(classes, key=lambda one: one.robust.value), line) for line, classes in known]
    yield Picture(
        _name("classes", table), svg(figure),
        "Clean and robust accuracy by class. Weakest class of each model: "
        + "; ".join(f"{_model(line, table)}, {one.name} at {percent(one.robust.value)} %" for one, line in worst) + ".",
        "The mean hides the weakest class: clean and worst-case accuracy of each class, and the gap between them.",
        (table,), wide=True,
    )  # fmt: skip


def _by_queries(table: Table, results: Results) -> Iterator[Picture]:
    yield from _spending(
        table, results, "queries", "forwards", {"scores", "labels"}, "forward passes per image",
        "How fast an attacker without gradients gets through: images still right after so many queries each.",
    )  # fmt: skip


def _by_steps(table: Table, results: Results) -> Iterator[Picture]:
    yield from _spending(
        table, results, "steps", "backwards", {"gradients"}, "gradient steps per image",
        "Convergence: images still right after so many gradients each. A curve that still falls at its end says that a"
        " longer attack would find more.",
    )  # fmt: skip


def _spending(
    table: Table, results: Results, name: str, meter: str, access: set[str], unit: str, caption: str
) -> Iterator[Picture]:  # fmt: skip
    """Standing images over what was spent; none of random models and minimum-norm attacks, which retire no image."""
    if table.stochastic:
        return
    curves: dict[Label, list[tuple[int, Line, Any]]] = defaultdict(list)
    for place, line in enumerate(table.lines[:MOST]):
        for attack, row in zip(table.attacks, line.rows, strict=True):
            if done(row) and row["definition"]["access"] in access and not _minimises(row):
                arrays = results.arrays(row, "clean", "robust", meter)
                spent = arrays[meter]
                curve = _falling(arrays["clean"], arrays["robust"], spent, float(spent.max(initial=0)))
                curves[attack].append((place, line, curve))
    attacks = [attack for attack in table.attacks if any(x[-1] > 2 for _, _, (x, _) in curves.get(attack, ()))]
    if not attacks:
        return
    figure, every = panels(len(attacks))
    label_below(every, unit)
    for axes, attack in zip(every, attacks, strict=True):
        for place, line, (x, y) in curves[attack]:
            axes.step(x, y, where="post", color=COLOURS[place], linestyle=_dashes(place), label=_model(line, table))
        axes.set_title(str(attack), fontsize=9)
        axes.set_ylim(-0.02, 1.02)
        if max(x[-1] for each in curves.values() for _, _, (x, _) in each) > _LONG:
            axes.set_xscale("symlog", linthresh=10)
            axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlim(left=0)
        _in_percent(axes)
    _one_legend(figure, every)
    yield Picture(_name(name, table), svg(figure), f"{caption} One panel per attack.", caption, (table,), wide=True)


def _falling(
    clean: npt.NDArray[Any], robust: npt.NDArray[Any], spent: npt.NDArray[Any], end: float
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """(what was spent when an image fell, the share still right from there on), from 0 to end."""
    fell = np.sort(spent[clean & ~robust])
    left = (clean.sum() - np.arange(len(fell) + 1)) / len(clean)
    x = np.concatenate([[0], fell, [max(end, fell[-1] if len(fell) else end)]])
    return x, np.append(left, left[-1])


def _by_eps(tables: Sequence[Table], results: Results) -> Iterator[Picture]:
    """Tables that differ in eps only; minimum-norm attacks say it for every eps at once."""
    groups: dict[Any, list[tuple[float, Table]]] = defaultdict(list)
    for table in tables:
        norm, _, rest = table.threat.partition(":")
        if rest:
            key = (table.data, table.split, table.images, norm, rest.partition(" ")[2], table.targets, table.stochastic)
            groups[key].append((_eps(table), table))
    for group in groups.values():
        group.sort(key=lambda pair: pair[0])
        curves = _nearest(group, results)
        if len(group) < 2 and not curves:
            continue
        last = group[-1][1]
        figure, (axes,) = panels(1, width=5.6, height=4.0)
        names = list(dict.fromkeys(_model(line, last) for _, table in group for line in table.lines))[:MOST]
        for place, name in enumerate(names):
            own = [(eps, line) for eps, table in group for line in table.lines if _model(line, last) == name]
            points = [(0.0, line.clean) for _, line in own[:1] if len(group) > 1]
            known = [(eps, rate) for eps, rate in [*points, *((eps, line.worst[-1]) for eps, line in own)] if rate]
            if known:
                axes.errorbar(
                    [eps for eps, _ in known], [rate.value for _, rate in known],
                    yerr=np.array([_reach(rate)[:, 0] for _, rate in known]).T, color=COLOURS[place],
                    marker=MARKS[place], elinewidth=1, label=name, linestyle=_dashes(place),
                )  # fmt: skip
            for attack, x, y in curves.get(name, ()):
                axes.step(x, y, where="post", color=COLOURS[place], linewidth=1, alpha=0.8, label=f"{name}, {attack}")
        axes.set(xlabel=f"radius of the {within(last.threat).partition(' of ')[0]}", ylim=(-0.02, 1.02))
        axes.set_xlim(0, group[-1][0] * 1.25)
        _in_percent(axes)
        figure.legend(loc="outside lower center", ncols=2)
        yield Picture(
            _name("eps", last, norm_only=True), svg(figure),
            f"Robust accuracy over eps of {len(names)} models; the tables hold the figures of each eps.",
            "Robust accuracy over the attacker's radius. Points: worst case over the attacks of that radius, with its"
            " interval. Thin steps: off the distances that a minimum-norm attack found.",
            tuple(table for _, table in group),
        )  # fmt: skip


def _nearest(group: Sequence[tuple[float, Table]], results: Results) -> dict[str, list[Any]]:
    """{model: (attack, eps, share standing)} of the minimum-norm attacks."""
    found: dict[str, list[Any]] = defaultdict(list)
    last = group[-1][1]
    for eps, table in group:
        for line in table.lines:
            for attack, row in zip(table.attacks, line.rows, strict=True):
                if done(row) and not table.stochastic and _minimises(row):
                    arrays = results.arrays(row, "clean", "robust", "distance")
                    clean, distance = arrays["clean"], arrays["distance"]
                    hit = clean & (~arrays["robust"] | (distance > eps))  # what stands inside was not found
                    found[_model(line, last)].append((str(attack), *_falling(clean, ~hit, distance, 2 * eps)))
    return found


def severity_curves(table: CorruptionTable) -> Picture | None:
    """Mean accuracy over all corruptions at each severity; None for a single severity or too few images."""
    levels = sorted({severity for line in table.lines for _, severity, _ in line.cells})
    if len(levels) < 2 or table.images < FEWEST:
        return None
    with style():
        figure, (axes,) = panels(1, width=5.6, height=4.0)
        for place, line in enumerate(table.lines[:MOST]):
            rates = [(level, line.accuracy(severity=level)) for level in levels]
            known = [(level, rate) for level, rate in rates if rate]
            axes.errorbar(
                [level for level, _ in known], [rate.value for _, rate in known],
                yerr=np.hstack([_reach(rate) for _, rate in known]) if known else None, color=COLOURS[place],
                marker=MARKS[place], elinewidth=1, linestyle=_dashes(place),
                label=_short(f"{line.model}, {line.defense}"),
            )  # fmt: skip
        axes.set(xlabel="severity", ylim=(-0.02, 1.02), xticks=levels)
        _in_percent(axes)
        figure.legend(loc="outside lower center", ncols=2)
        drawn = svg(figure)
    under = [table.under] if table.under else []
    return Picture(
        slug("-".join([table.data, table.split, *under, str(table.images), table.benchmark, "severity"])), drawn,
        "Accuracy over the severity of corruptions, by model; the table holds the means.",
        "Accuracy over severity: the mean over all corruptions, with its interval.", (),
    )  # fmt: skip


def _minimises(row: Row) -> bool:
    about = row["definition"]
    return _kind_minimises(about["attack"], json.dumps(about["attack_settings"]))


@functools.cache
def _kind_minimises(attack: str, settings: str) -> bool:
    try:
        return find_attack(attack, json.loads(settings)).minimises
    except RobustBenchError:  # a plug-in that is not installed here
        return False


def _model(line: Line, table: Table) -> str:
    """As short as the table allows: the model is named where there are several."""
    alone = len({other.model for other in table.lines}) == 1
    return _short(defense(line) if alone else f"{line.model}, {defense(line)}")


def _short(text: str) -> str:
    """$ would begin a formula."""
    return (text if len(text) <= 34 else text[:33] + "…").replace("$", r"\$")


def _name(kind: str, table: Table, norm_only: bool = False) -> str:
    threat = table.threat.partition(":")[0] if norm_only else table.threat
    parts = [table.data, table.split, threat, str(table.images), *([table.targets] if table.targets else [])]
    return slug("-".join([*parts, *["random"] * table.stochastic, kind]))


def _eps(table: Table) -> float:
    return next(float(row["definition"]["eps"]) for line in table.lines for row in line.rows if row is not None)


def _reach(rate: Rate) -> npt.NDArray[np.float64]:
    return np.maximum([[rate.value - rate.low], [rate.high - rate.value]], 0)


def _dashes(place: int) -> Any:
    return ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))[place % 4]


def _in_percent(axes: Axes, both: bool = False) -> None:
    for axis in (axes.yaxis, axes.xaxis) if both else (axes.yaxis,):
        axis.set_major_formatter(PercentFormatter(1))


def _one_legend(figure: Any, every: Sequence[Axes]) -> None:
    found = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(3, len(found)))
