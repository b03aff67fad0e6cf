"""How plots look: one set of colours that reads on light and on dark paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustbench_local.metrics.rates import Rate
from robustbench_local.report.shades import ink, shade
from robustbench_local.report.svg import INK, LINE, SOFT
from robustbench_local.report.text import DASH, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

COLOURS = ("#1f8a84", "#cf6f2a", "#4b80c8", "#a05fb8", "#85872a", "#c94f7c", "#7c8288", "#9a6a4c")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robustbench_local",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "axes.titlecolor": INK,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # $ in a name begins no formula
    "path.simplify_threshold": 0.5,  # points: what is finer is not seen
}


@cache
def teal() -> Colormap:
    """From paper to teal, for shares."""
    from matplotlib.colors import LinearSegmentedColormap  # here and below: it takes as long to load as a page to write

    return LinearSegmentedColormap.from_list("teal", ["#f3efe6", "#a9d0c9", "#1b6e6a"])


@contextmanager
def style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # a dict of any kind of value
        yield


def panels(
    count: int, across: int = 3, width: float = 3.1, height: float = 2.5, *, sharing: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels that share their axes, or have each their own."""
    from matplotlib.figure import Figure

    columns = min(count, across)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 5.2), height * rows + 0.6))
    axes = figure.subplots(rows, columns, sharex=sharing, sharey=sharing, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def label_below(axes: list[Axes], text: str, across: int = 3) -> None:
    """Name and number the x axis of the panels that have no other below them."""
    for place, each in enumerate(axes):
        if place + across >= len(axes):
            each.set_xlabel(text)
            each.tick_params(labelbottom=True)


def heat(values: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]) -> tuple[Figure, Axes]:
    """A map of shares (rows, columns) in percent, each cell with its figure; NaN is a dash."""
    from matplotlib.patches import Rectangle

    figure, (axes,) = panels(1, width=9.3, height=1.0 + 0.34 * len(rows))
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    size = 9 if len(columns) < 12 else 7.5
    for (i, j), value in np.ndenumerate(values):  # what lies inside takes part in no layout, which would measure it
        missing = np.isnan(value)
        if not missing:
            cell = Rectangle((j - 0.485, i - 0.47), 0.97, 0.94, facecolor=shade(value), linewidth=0, clip_on=False)
            cell.set_in_layout(False)
            axes.add_patch(cell)
        colour = SOFT if missing else ink(value)
        said = DASH if missing else percent(value)
        axes.text(j, i, said, ha="center", va="center", color=colour, fontsize=size, in_layout=False)
    across = 100 // len(columns)  # letters that fit side by side
    if across >= 13:
        axes.set_xticks(range(len(columns)), [wrapped(name, across) for name in columns], fontsize=9)
    else:
        axes.set_xticks(range(len(columns)), map(short, columns), rotation=40, ha="right", fontsize=9)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def wrapped(text: str, width: int, lines: int = 4) -> str:
    """Over several lines, broken before a bracket and where words, names and values end; the rest is …"""
    head, bracket, rest = text.partition(" (")
    found = [""]
    for word in re.split(r"(?<=[ _=])", text if not bracket or len(text) <= width else f"{head} "):
        if found[-1] and len(found[-1] + word.rstrip()) > width:
            found.append("")
        found[-1] += word
    if bracket and len(text) > width:
        found += wrapped(f"({rest}", width, lines).splitlines()
    return "\n".join(each.strip() for each in found[:lines]) + "…" * (len(found) > lines)


def dashes(place: int) -> Any:
    return ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))[place % 4]


def reach(rate: Rate) -> npt.NDArray[np.float64]:
    """The interval as errorbar() wants it."""
    return np.maximum([[rate.value - rate.low], [rate.high - rate.value]], 0)


def in_percent(*axes: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))


def one_legend(figure: Figure, every: Sequence[Axes]) -> None:
    found = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(1 + len(every), 3))
