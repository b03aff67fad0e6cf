"""What a plug-in's class says of itself, and what it does with settings that are odd."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from robustbench_local.config.settings import construct, hints_of
from robustbench_local.core.errors import RobustBenchError, said

P = TypeVar("P")
REFUSE = "Annotate fields with types, and refuse what means nothing by a ConfigError in __post_init__"


def says_nothing(kind: type[Any]) -> Iterator[str]:
    """What is missing of a plug-in's class: a frozen dataclass with annotated fields, a docstring, a summary."""
    if "__dataclass_fields__" not in vars(kind) or not kind.__dataclass_params__.frozen:
        yield f"{kind.__name__} is no frozen dataclass of its own: write @dataclass(frozen=True) above the class"
    text = vars(kind).get("__doc__") or ""
    if not text or text.startswith(f"{kind.__name__}("):  # which dataclass writes
        yield f"{kind.__name__} has no docstring: say in a sentence what it does, from which paper, and what it costs"
    if not kind.summary:
        yield "summary is empty: say in a few words what it does"
    if not isinstance(kind.version, int) or kind.version < 1:
        yield f"version is {kind.version!r}: a whole number from 1"
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        if field.name not in hints:
            yield f"the type of the setting {field.name} cannot be resolved: import at run time what it names"
        elif hints[field.name] is Any:
            yield f"the setting {field.name} may be anything: annotate it, so that a typo is an error"


def odd_settings(plugin: P, use: Callable[[P], Iterator[str]]) -> Iterator[str]:
    """For each number among the settings: text, -1 and 0 are refused by a ConfigError or do no harm.

    use(plugin) says what is wrong with what it then gives.
    """
    own = {field.name: getattr(plugin, field.name) for field in dataclasses.fields(plugin) if field.init}  # type: ignore[arg-type]
    for name, value in own.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for odd in ("much", -1, 0):
            try:
                other = construct(type(plugin), own | {name: odd}, type(plugin).__name__)
                seen = list(use(other))
            except RobustBenchError:
                continue
            except Exception as error:
                seen = [f"it ended in {type(error).__name__}: {said(error)}"]
            yield from (f"with {name}={odd!r} {text}" for text in seen)
