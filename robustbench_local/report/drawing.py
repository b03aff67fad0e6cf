"""How plots look: one set of colours that reads on light and on dark paper, SVG that is the same at every run."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, SOFT, LINE = "#1e2126", "#5a6069", "#dedad2"
_DARK = {INK: "#e9e7e2", SOFT: "#a3a9b1", LINE: "#343a40"}
COLOURS = ("#1f8a84", "#cf6f2a", "#4b80c8", "#a05fb8", "#85872a", "#c94f7c", "#7c8288", "#9a6a4c")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
TEAL = LinearSegmentedColormap.from_list("teal", ["#f3efe6", "#a9d0c9", "#1b6e6a"])
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "robustbench_local", "font.family": "sans-serif", "font.size": 10.0,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.8,
    "axes.axisbelow": True, "axes.titlesize": 10.0, "axes.titlelocation": "left", "legend.frameon": False,
    "legend.fontsize": 9.0, "lines.linewidth": 1.6, "lines.markersize": 4.5, "axes.titlecolor": INK,
    "figure.constrained_layout.use": True,
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # a dict of any kind of value
        yield


def panels(count: int, across: int = 3, width: float = 3.1, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels that share their axes."""
    columns = min(count, across)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 5.2), height * rows + 0.6))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def label_below(axes: list[Axes], text: str, across: int = 3) -> None:
    """Name and number the x axis of the panels that have no other below them."""
    for place, each in enumerate(axes):
        if place + across >= len(axes):
            each.set_xlabel(text)
            each.tick_params(labelbottom=True)


def svg(figure: Figure) -> str:
    """The figure as SVG text on no background; ink turns light where the reader's system is dark."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", text)
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items() for what in ("fill", "stroke")
    )  # fmt: skip
    own = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda found: found.group(1) + own, text, count=1)
