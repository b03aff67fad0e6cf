"""Progress of a download, told by how much its folder has grown, whoever does it; and of things that are counted."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from robustbench_local.core import streams
from robustbench_local.core.escaping import shown

T = TypeVar("T")
_QUICK = 200  # so many things are done before anybody wonders


def say(line: str) -> None:
    if not streams.QUIET.get():
        streams.say(line)


def _shows() -> bool:
    return sys.stderr.isatty() and not streams.QUIET.get()


@contextlib.contextmanager
def download_bar(label: str, folder: Path, expected_bytes: int) -> Iterator[None]:
    """A bar on the terminal until the block ends; one line where stderr is no terminal."""
    if not _shows():
        say(f"{label} ...")
        yield
        return
    # The stream as it is now: the block may redirect sys.stderr to silence another library's bar.
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(file=sys.stderr),
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.2):
            bar.update(task, completed=min(_size(folder), expected_bytes))

    with bar:
        task = bar.add_task(label, total=expected_bytes)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
            bar.update(task, completed=expected_bytes)
        finally:
            finished.set()
            watcher.join()


@contextlib.contextmanager
def counting_bar(label: str, count: int) -> Iterator[Callable[[Iterable[T]], Iterable[T]]]:
    """Says the label, and gives what counts the things that pass through it, on a bar where stderr is a terminal.
    Of a few things nothing is said or shown.
    """
    if count >= _QUICK:
        say(f"{shown(label, 'terminal')} ...")
    if count < _QUICK or not _shows():
        yield lambda things: things
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, redirect_stderr=False) as bar:
        yield lambda things: bar.track(things, total=count, description="")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone since it was listed
            total += path.stat().st_size
    return total
