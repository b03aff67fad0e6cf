"""Tables in a terminal, or through a pipe: what does not fit is left out by whole columns, and words stay whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from robustbench_local.core.streams import width

_ENOUGH = 24  # characters that the longest word of a column of texts may ask for
_SETS_APART = 2  # characters between two columns, one of which is the divider of the box
_WORD = re.compile(r"\S*\s*")
_PIECE = re.compile(r"[^\s/:,;|=(]*[\s/:,;|=(]*")  # a name breaks after these,
_PART = re.compile(r"[^_.-]*[_.-]*")  # and after these where it must


@dataclass(frozen=True)
class Column:
    """cells may have several lines; a style of rich's may stand beside each. last: whether it is among the first to be
    left out, the higher the sooner; 0 stays, come what may. Figures are set to the right and never broken. least: the
    characters that texts have at least, where they need as many.
    """

    head: str
    cells: Sequence[str | Text]
    figures: bool = False
    last: int = 0
    least: int = 12

    @property
    def widest(self) -> int:
        return max(len(line) for cell in (self.head, *self.cells) for line in str(cell).split("\n"))

    @property
    def narrowest(self) -> int:
        """Of texts, that may be folded."""
        pieces = (len(piece.rstrip()) for cell in (self.head, *self.cells) for piece in _PIECE.findall(str(cell)))
        return self.widest if self.figures else min(self.widest, max(self.least, min(max(pieces), _ENOUGH)))


def console() -> Console:
    """Standard output, as wide as it is."""
    return Console(width=width())


def fitting(columns: Sequence[Column], room: int) -> tuple[list[Column], list[str]]:
    """(the columns that there is room for, in their order; the headings of those left out)."""
    kept = list(columns)
    while _needed([column.narrowest for column in kept]) > room and any(column.last for column in kept):
        place = max(range(len(kept)), key=lambda each: (kept[each].last, each))
        del kept[place]
    return kept, [" ".join(column.head.split()) for column in columns if column not in kept]


def table(columns: Sequence[Column], room: int) -> tuple[Grid, list[str]]:
    """(the table of so many characters, the headings of the columns that were left out)."""
    kept, left_out = fitting(columns, room)
    widths = [column.narrowest for column in kept]
    spare = room - _needed(widths)
    for place, column in enumerate(kept):  # the first ones are names, and get what they need
        more = max(0, min(spare, column.widest - widths[place]))
        widths[place] += more
        spare -= more
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, _SETS_APART - 1, 0, 0), pad_edge=False, show_edge=False)
    for column, size in zip(kept, widths, strict=True):
        head = Text("\n".join(_lines(column.head, size)))
        grid.add_column(head, justify="right" if column.figures else "left", no_wrap=True, width=size)
    for cells in zip(*(column.cells for column in kept), strict=True):
        grid.add_row(*(_in(cell, size) for cell, size in zip(cells, widths, strict=True)))
    return grid, left_out


def lines_of(grid: Grid, room: int) -> str:
    """A table as plain text."""
    out = StringIO()
    Console(file=out, width=room, color_system=None).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + _SETS_APART * len(widths)


def _in(cell: str | Text, size: int) -> Text:
    if isinstance(cell, Text) and all(len(line) <= size for line in cell.plain.split("\n")):
        return cell
    style = cell.style if isinstance(cell, Text) else ""
    return Text("\n".join(_lines(str(cell), size)), style)


def _pieces(line: str, size: int) -> Iterator[str]:
    """Words with the blanks after them; of those that are too long the parts."""
    for word in _WORD.findall(line):
        if len(word.rstrip()) <= size:
            yield word
        else:
            for piece in _PIECE.findall(word):
                yield from [piece] if len(piece.rstrip()) <= size else _PART.findall(piece)


def _lines(text: str, size: int) -> Iterator[str]:
    """Folded after blanks, and names that are too long after the signs within; what is still so ends in an ellipsis."""
    for line in text.split("\n"):
        here = ""
        for piece in _pieces(line, size):
            if len((here + piece).rstrip()) > size and here:
                yield here.rstrip()
                here = ""
            here += piece
            if len(here.rstrip()) > size:
                here = here[: size - 1] + "…"
        yield here.rstrip()
