"""Changes between two folders as text for a terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.text import Text

from robustbench_local.core import tables
from robustbench_local.core.tables import Column
from robustbench_local.metrics.paired import noticeable
from robustbench_local.report.compare import PARTS, POWER, Change
from robustbench_local.report.text import DASH, percent

_LINES = 200  # of a part, that are read in a terminal
HEADINGS = {
    "attack": "Attack by attack",
    "worst case": "Worst case per image, over the attacks that both have",
    "clean": "Clean accuracy",
    "audit": "Audits: what was robust once more, of the images that both audits asked about",
    "certified": "Certified: what no attack can break",
}


def show(changes: Sequence[Change], alpha: float = 0.05, console: Console | None = None) -> None:
    """Print what was compared, worst first, then what could not be, by name, and what a comparison of so many images
    would have noticed. Of hundreds of lines those that are not printed are counted.
    """
    console = console or tables.console()
    for part in PARTS:
        compared = [change for change in changes if change.part == part and change.pair]
        if compared:
            console.print(Text(HEADINGS[part], style="bold"))
            compared.sort(key=lambda each: (not each.worse, each.p or 0.0))
            grid, left_out = tables.table(_columns(compared[:_LINES]), console.width)
            console.print(grid)
            if left_out:
                console.print(Text(f"No room for: {', '.join(left_out)}. --out FILE has all."))
            if more := _counted(compared[_LINES:]):
                console.print(Text(f"Not shown: {more}. --out FILE has all."))
    for line in (*_missing(changes), *_remarks(changes), *_power(changes, alpha)):
        console.print(Text(line))
    cells = [change for change in changes if change.part == PARTS[0]]
    console.print(
        f"{len(cells)} cells: {_counted(cells)}. Accuracy in % on the images that both have, as the attacks of the rows"
        " left it; p: exact McNemar test (models that draw random numbers: sign flips), adjusted by Holm for all lines."
    )


def _counted(changes: Sequence[Change]) -> str:
    """ "2 worse, 5 same"."""
    return ", ".join(f"{count} {what}" for what, count in Counter(change.what for change in changes).items())


def _columns(compared: Sequence[Change]) -> list[Column]:
    """The name, the verdict, and figures, of which those before and after are the last to go."""
    pairs = [change.pair for change in compared if change.pair]
    styles = ["red" if change.worse else "green" if change.what == "better" else "dim" for change in compared]
    return [
        Column("", [change.name for change in compared], least=30),
        Column("images", [str(pair.n) for pair in pairs], figures=True, last=4),
        Column("before", [percent(change.before or 0.0) for change in compared], figures=True, last=1),
        Column("after", [percent(change.after or 0.0) for change in compared], figures=True, last=1),
        Column("lost", [str(pair.only_first) for pair in pairs], figures=True, last=3),
        Column("gained", [str(pair.only_second) for pair in pairs], figures=True, last=3),
        Column("p", [DASH if change.p is None else f"{change.p:.3g}" for change in compared], figures=True, last=2),
        Column("", [Text(change.what, style) for change, style in zip(compared, styles, strict=True)], figures=True),
    ]


def _missing(changes: Sequence[Change]) -> Iterator[str]:
    """What was not compared, by name."""
    groups: dict[str, list[str]] = defaultdict(list)
    for change in changes:
        if not change.pair:
            figures = [percent(rate) for rate in (change.before, change.after) if rate is not None]
            groups[change.what].append(f"{change.name}{f' ({figures[0]})' if len(figures) == 1 else ''}")
    for what, names in groups.items():
        yield f"{what} ({len(names)}):"
        yield from (f"  {name}" for name in names[:_LINES])
        if len(names) > _LINES:
            yield f"  and {len(names) - _LINES} more: --out FILE has all"


def _remarks(changes: Sequence[Change]) -> Iterator[str]:
    """Images that only one folder has, and what was made differently; how many cells that concerns."""
    cells = [change for change in changes if change.part == PARTS[0] and change.pair]
    fewer: Counter[tuple[int, int, int]] = Counter()
    for change in cells:
        assert change.pair and change.images
        if {*change.images} != {change.pair.n}:
            fewer[change.pair.n, *change.images] += 1
    for (both, before, after), count in fewer.items():
        yield f"Compared on the {both} images that both have, of {before} before and {after} after: {_cells(count)}."
    for what, count in Counter(each for change in cells for each in change.differs).items():
        yield f"Made differently, {what}: {_cells(count)}."


def _power(changes: Sequence[Change], alpha: float) -> Iterator[str]:
    """What drop would have been noticed, for each number of images, given how many of them changed sides."""
    tested = [change.pair for change in changes if change.pair]
    by_n: dict[int, list[float]] = defaultdict(list)
    for change in changes:
        if change.part == PARTS[0] and change.pair:
            by_n[change.pair.n].append((change.pair.only_first + change.pair.only_second) / change.pair.n)
    for n, moved in sorted(by_n.items(), reverse=True):
        churn = float(np.mean(moved))
        drop = noticeable(n, alpha / len(tested), churn, POWER)
        would = "no drop, however large" if drop is None else f"a drop of {np.ceil(1000 * drop) / 10:.1f} points"
        yield (
            f"n = {n} would notice {would}: with {POWER:.0%} power, by McNemar's exact test at {alpha:g} /"
            f" {len(tested)} lines, where {percent(churn)} % of the images change sides, as here."
        )


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"
