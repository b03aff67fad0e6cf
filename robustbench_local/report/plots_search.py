"""Plots of how attacks went on: images still right over what was spent, and the objective over steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.access import Access
from robustbench_local.report.drawing import (
    COLOURS,
    MARKS,
    dashes,
    in_percent,
    label_below,
    one_legend,
    panels,
    wrapped,
)
from robustbench_local.report.labels import Label
from robustbench_local.report.picture import MOST, Picture, in_reach, model_of, name_of
from robustbench_local.report.results import Results
from robustbench_local.report.svg import svg
from robustbench_local.report.table import Line, Table
from robustbench_local.storage.row import done

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONG = 200  # passes, beyond which their axis is logarithmic
_TITLE = 42  # letters in a line above a panel
_ENOUGH = 5  # images of which a median is worth drawing


def by_queries(table: Table, results: Results) -> Iterator[Picture]:
    yield from _spending(
        table,
        results,
        "queries",
        "forwards",
        {Access.SCORES, Access.LABELS},
        "forward passes per image",
        "How fast an attacker without gradients gets through: images still right after so many queries each.",
    )


def by_steps(table: Table, results: Results) -> Iterator[Picture]:
    yield from _spending(
        table,
        results,
        "steps",
        "backwards",
        {Access.GRADIENTS},
        "gradient steps per image",
        "Robust accuracy over steps: images still right after so many gradients each. A curve that still falls at its"
        " end says that a longer attack would find more.",
    )


def convergence(table: Table, results: Results) -> Iterator[Picture]:
    """Of the attacks whose rows keep a trace: those that climb one objective and remember its best value."""
    found: dict[Label, list[tuple[int, Line, dict[str, Any]]]] = defaultdict(list)
    within, said = in_reach(table)
    for place, line in enumerate(table.lines[:MOST]):
        for attack, row in ((table.attacks[column], line.rows[column]) for column in within):
            trace = row.results.get("trace") if done(row) else None
            if trace and trace["images"] >= _ENOUGH:
                found[attack].append((place, line, trace))
    attacks = [attack for attack in table.attacks if attack in found]
    if not attacks:
        return
    from matplotlib.ticker import MaxNLocator

    figure, every = panels(len(attacks), sharing=False)
    for axes, attack in zip(every, attacks, strict=True):
        for place, line, trace in found[attack]:
            steps, colour = trace["steps"], COLOURS[place]
            axes.fill_between(steps, trace["low"], trace["high"], color=colour, alpha=0.16, linewidth=0)
            axes.plot(steps, trace["median"], color=colour, linestyle=dashes(place), label=model_of(line, table))
        axes.set_title(wrapped(str(attack), _TITLE), fontsize=9)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("generations" if _evolves(found[attack][0][1], attack, table) else "steps")
    every[0].set_ylabel("best objective so far")
    one_legend(figure, every)
    caption = (
        "Convergence: the best value so far of what an attack climbs (its loss, or the log odds against the true"
        " class), over the steps of its first round; median and quartiles of the robust images. A curve that still"
        f" climbs says that a longer attack might find more; where no image is robust there is none.{said}"
    )
    yield Picture(
        name_of("convergence", table),
        svg(figure),
        f"Best objective over steps of {len(attacks)} attacks.",
        caption,
        (table,),
        wide=len(attacks) > 1,
    )


def _evolves(line: Line, attack: Label, table: Table) -> bool:
    """Whether it asks for no gradient, and so does not step."""
    row = line.rows[table.attacks.index(attack)]
    return row is not None and row.access is not Access.GRADIENTS


def _spending(
    table: Table, results: Results, name: str, meter: str, access: set[Access], unit: str, caption: str
) -> Iterator[Picture]:
    """Images still right over what was spent; none of random models and minimum-norm attacks, which retire no image.

    Nor of naive attacks and of those judged by their end: there images are broken at the end, all at once.
    """
    if table.stochastic:
        return
    curves: dict[Label, list[tuple[int, Line, Any]]] = defaultdict(list)
    within, said = in_reach(table)
    for place, line in enumerate(table.lines[:MOST]):
        for attack, row in ((table.attacks[column], line.rows[column]) for column in within):
            if attack.naive or not done(row) or row.definition["count"] != "all" or row.minimises:
                continue
            if row.access in access:
                arrays = results.arrays(row, "clean", "robust", meter)
                spent = arrays[meter]
                curve = falling(arrays["clean"], arrays["robust"], spent, float(spent.max(initial=0)))
                curves[attack].append((place, line, curve))
    attacks = [attack for attack in table.attacks if any(x[-1] > 2 for _, _, (x, _) in curves.get(attack, ()))]
    if not attacks:
        return
    figure, every = panels(len(attacks))
    label_below(every, unit)
    longest = max(x[-1] for attack in attacks for _, _, (x, _) in curves[attack])
    for axes, attack in zip(every, attacks, strict=True):
        for place, line, (x, y) in curves[attack]:
            axes.step(x, y, where="post", color=COLOURS[place], linestyle=dashes(place), label=model_of(line, table))
            if y[-1] == 0:  # here its line ends
                axes.plot(x[np.argmax(y == 0)], 0, MARKS[place], color=COLOURS[place], clip_on=False)
        axes.set_title(wrapped(str(attack), _TITLE), fontsize=9)
        axes.set_ylim(-0.02, 1.02)
        if longest > _LONG:
            _logarithmic(axes, longest)
        axes.set_xlim(left=0)
        in_percent(axes.yaxis)
    one_legend(figure, every)
    caption += said
    yield Picture(
        name_of(name, table), svg(figure), f"{caption} One panel per attack.", caption, (table,), wide=len(attacks) > 1
    )


def _logarithmic(axes: Axes, longest: float) -> None:
    """From 0 on, with ticks at 1, 10, 100 ... written out."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set_xticks([0, *(10**k for k in range(1 + int(np.log10(longest))))])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def falling(
    clean: npt.NDArray[Any], robust: npt.NDArray[Any], spent: npt.NDArray[Any], end: float
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """(what was spent when an image was broken, the share still right from there on), from 0 to end."""
    broken = np.sort(spent[clean & ~robust])
    left = (clean.sum() - np.arange(len(broken) + 1)) / len(clean)
    x = np.concatenate([[0], broken, [max(end, broken[-1] if len(broken) else end)]])
    return x, np.append(left, left[-1])
