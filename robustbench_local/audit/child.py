"""In a process of its own: a model's answers, while clocks go on by days and its files and connections are watched."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.models.formats.python import module_of

DATES = datetime.datetime
# seconds by which clocks are ahead: times of day, days of the week, months and years, and no round number
LATER = (21_613.7, 43_201.9, 64_817.3, 3 * 86_400 + 31.1, 101 * 86_400 + 7.9, 400 * 86_400 + 3.3)


class _Times(type):
    """Of a class that stands for datetime.datetime: whatever is one is one of it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, DATES)


class Clocks:
    """The clocks of the modules time and datetime, `ahead` seconds later, wherever a loaded module names them.

    Made when the model has answered once: what is imported after that would meet another class of dates.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        clocks, written = self, time.strftime

        class Later(DATES, metaclass=_Times):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return super().now(tz) + datetime.timedelta(seconds=clocks.ahead)

            @classmethod
            def utcnow(cls) -> Any:
                return cls.now(datetime.UTC).replace(tzinfo=None)

        instead: dict[object, object] = {DATES: Later}
        for name in ("time", "monotonic", "perf_counter"):
            instead[getattr(time, name)] = self._later(getattr(time, name), 1)
            instead[getattr(time, f"{name}_ns")] = self._later(getattr(time, f"{name}_ns"), 10**9)
        for name in ("localtime", "gmtime", "ctime"):
            instead[getattr(time, name)] = self._of_now(getattr(time, name))
        instead[written] = lambda form, when=None: written(form, when or time.localtime())
        by_identity = {id(own): other for own, other in instead.items()}
        for module in (time, datetime, *(sys.modules[name] for name in [*sys.modules] if _strange(name))):
            for name, value in [*vars(module).items()]:
                if id(value) in by_identity:
                    setattr(module, name, by_identity[id(value)])

    def _later(self, clock: Callable[[], Any], a_second: int) -> Callable[[], Any]:
        return lambda: clock() + type(a_second * clock())(self.ahead * a_second)

    def _of_now(self, form: Callable[[float], Any]) -> Callable[..., Any]:
        return lambda seconds=None: form(time.time() if seconds is None else seconds)


def _strange(module: str) -> bool:
    """Whether it may be the model's: none of Python's own, of torch's or of this package's."""
    return module.partition(".")[0] not in {*sys.stdlib_module_names, "torch", "robustbench_local"}


class Watch:
    """What is opened and connected to while `on`: files that are written, or younger than the audit."""

    def __init__(self, since: float, spared: str) -> None:
        self.on, self.since, self.spared = False, since, spared
        self.files: list[str] = []
        self.connections: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, about: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "socket.connect":
            self.connections.append(str(about[1]))
        elif event in ("open", "sqlite3.connect") and isinstance(about[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(about[0]))
            if not path.startswith((self.spared, "/proc/", "/sys/")) and path != os.devnull and self._kept(path, about):
                self.files.append(path)

    def _kept(self, path: str, about: tuple[Any, ...]) -> bool:
        mode, flags = (*about, None, None)[1:3]
        if any(letter in str(mode or "") for letter in "wax+") or int(flags or 0) & (os.O_WRONLY | os.O_RDWR):
            return True
        return os.path.exists(path) and os.stat(path).st_mtime >= self.since

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


def main() -> None:
    """Read the model and the question from the folder that the command names, write the answer into it."""
    folder = Path(sys.argv[1])
    batches, ids, seed, since = torch.load(folder / "question", weights_only=True)
    watch = Watch(since, os.environ["TORCHINDUCTOR_CACHE_DIR"])
    for name, file in json.loads(os.environ["ROBUSTBENCH_LOCAL_FILES"]).items():
        module_of(Path(file), name)
    model = torch.load(folder / "model", weights_only=False)  # written by the process that started this one
    x = batches[0].to(next((parameter.device for parameter in model.parameters()), batches[0].device))

    def ask(x: torch.Tensor) -> torch.Tensor:
        with watch.watching():
            return call(model, x, Draws(seed, ids.to(x.device)).stream("audit:ask")).cpu()

    with as_deployed(model), full_float32(), torch.no_grad():
        logits = [ask(each.to(x)) for each in batches]
        clocks, later = Clocks(), []
        for clocks.ahead in LATER:
            later.append(ask(x))
    torch.save((logits, later, sorted({*watch.files}), sorted({*watch.connections})), folder / "answer")
