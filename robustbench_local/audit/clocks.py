"""Clocks that go on by days, for a process that is asked whether a model looks at them."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from typing import Any

DATES = datetime.datetime


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
            for name, value in [*getattr(module, "__dict__", {}).items()]:
                if id(value) in by_identity:
                    setattr(module, name, by_identity[id(value)])

    def _later(self, clock: Callable[[], Any], a_second: int) -> Callable[[], Any]:
        return lambda: clock() + type(a_second * clock())(self.ahead * a_second)

    def _of_now(self, form: Callable[[float], Any]) -> Callable[..., Any]:
        return lambda seconds=None: form(time.time() if seconds is None else seconds)


def _strange(module: str) -> bool:
    """Whether it may be the model's: none of Python's own, of torch's or of this package's."""
    return module.partition(".")[0] not in {*sys.stdlib_module_names, "torch", "robustbench_local"}
