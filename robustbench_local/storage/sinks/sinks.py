"""The sinks that a grid names, and which rows they have: FOLDER/logged/SINK/KEY is there once a row was sent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from robustbench_local.core.errors import ConfigError, said
from robustbench_local.storage.row import Row
from robustbench_local.storage.sinks.sink import Entry, Sink

FOLDER = "logged"
CLASSES = {"mlflow": "Mlflow", "wandb": "Wandb", "tensorboard": "Tensorboard"}


class Sinks:
    """Each row is sent to each sink once, by whichever process sees it first; also where it was there before the grid
    named the sink. What could not be sent is tried again by the next start of the command.
    """

    def __init__(self, names: Sequence[str], folder: Path, tell: Callable[[str], None]) -> None:
        """ConfigError where one cannot be used: its library is not installed, say. tell: what could not be sent."""
        self._folder, self._tell = folder / FOLDER, tell
        self._sinks = {name: _loaded(name, folder) for name in names}

    def send(self, row: Row) -> None:
        for name, sink in self._sinks.items():
            mark = self._folder / name / row.key
            if not row.ok or not _is_first(mark):
                continue
            try:
                sink.send(Entry.of(row))
            except Exception as error:  # somebody's server may answer anything; the rows are in their folder
                mark.unlink(missing_ok=True)
                self._tell(f"{name} did not take row {row.key}: {type(error).__name__}: {said(error)}")
            except BaseException:  # interrupted: it is sent by the next start
                mark.unlink(missing_ok=True)
                raise


def _loaded(name: str, folder: Path) -> Sink:
    try:
        module = importlib.import_module(f"robustbench_local.storage.sinks.{name}")
    except ImportError as error:
        raise ConfigError(f"log={name} cannot be loaded ({error}): pip install 'robustbench_local[{name}]'") from error
    try:
        sink: Sink = getattr(module, CLASSES[name])(folder)
    except Exception as error:  # whatever the library makes of the user's environment
        raise ConfigError(f"log={name} cannot begin: {type(error).__name__}: {said(error)}") from error
    return sink


def _is_first(mark: Path) -> bool:
    """Whether this process is the one that sends."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
