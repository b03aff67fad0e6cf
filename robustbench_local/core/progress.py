"""How a long job reports: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from robustbench_local.core import streams
from robustbench_local.core.escaping import shown


class Progress:
    """Silent by default; `with Terminal() as progress` shows. Jobs call advance and line, and never print."""

    def line(self, text: str) -> None:
        """A message that stays."""

    def block(self, text: str) -> None:
        """Lines of ours that stay as they are, such as a table."""

    def advance(self, what: str, share: float) -> None:
        """The job is at share in [0, 1], doing `what`."""

    def rest(self) -> None:
        """Nothing is timed right now: between two jobs."""

    def lane(self, place: int) -> Progress:
        """For one of several jobs that go on at once: a bar of its own, where there are bars."""
        return Progress()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Part(Progress):
    """A share of a longer job's progress: from start on, of width, both in [0, 1]."""

    def __init__(self, whole: Progress, label: str, start: float, width: float) -> None:
        self._whole, self._label, self._start, self._width = whole, label, start, width

    def line(self, text: str) -> None:
        self._whole.line(f"{self._label}: {text}")

    def block(self, text: str) -> None:
        self._whole.block(text)

    def advance(self, what: str, share: float) -> None:
        self._whole.advance(self._label, self._start + self._width * share)


class Terminal(Progress):
    """On standard error, so that tables on standard output can be piped: two lines for the whole, one for each lane.

    Under -q (streams.QUIET) it is silent.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, quiet=streams.QUIET.get())
        self._bar = _Bars(console=self.console, transient=True, disable=not self.console.is_terminal)
        self._tasks: dict[int | None, TaskID] = {}

    def __enter__(self) -> Terminal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Folded on a terminal; where it is kept, one line of text is one line."""
        text = shown(text, "terminal")
        self.block(streams.folded(text, columns=self.console.width) if self.console.is_terminal else text)

    def block(self, text: str) -> None:
        try:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody can be told; the work goes on
            streams.abandon(sys.stderr)

    def advance(self, what: str, share: float) -> None:
        self.show(None, what, share)

    def lane(self, place: int) -> Progress:
        return _Lane(self, place)

    def show(self, lane: int | None, what: str, share: float) -> None:
        """lane: which bar, None for that of the whole."""
        what = shown(what, "terminal")
        if lane not in self._tasks:
            self._tasks[lane] = self._bar.add_task(what, total=1.0, lane=lane)
        self._bar.update(self._tasks[lane], description=what, completed=share)


class _Bars(rich_progress.Progress):
    """What is at work on a line of its own, cut where it is too long, and the bar with its times below it."""

    _TIMES = (TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TimeRemainingColumn())
    _BAR = BarColumn(bar_width=None)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        lines = Table.grid(expand=True)
        for task in sorted(tasks, key=lambda task: task.fields["lane"] is not None):
            what = Text(task.description, no_wrap=True, overflow="ellipsis")
            if task.fields["lane"] is None:
                lines.add_row(what)
                lines.add_row(_beside(self._BAR(task), *(column(task) for column in self._TIMES)))
            else:
                lines.add_row(_beside(what, self._TIMES[0](task)))
        return lines


def _beside(first: RenderableType, *others: RenderableType) -> Table:
    """On one line, of which the first takes what the others leave."""
    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1, no_wrap=True)
    for _ in others:
        line.add_column(no_wrap=True)
    line.add_row(first, *others)
    return line


class _Lane(Progress):
    def __init__(self, whole: Terminal, place: int) -> None:
        self._whole, self._place = whole, place

    def line(self, text: str) -> None:
        self._whole.line(text)

    def block(self, text: str) -> None:
        self._whole.block(text)

    def advance(self, what: str, share: float) -> None:
        self._whole.show(self._place, what, share)
