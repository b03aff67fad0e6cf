"""key=value arguments, as a grid and a recipe take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustbench_local.core.errors import ConfigError


def name_and_overrides(texts: Sequence[str], what: str) -> tuple[str | None, dict[str, Any]]:
    """The name that is meant, the one word without "=" or the value of the key `what`, and the other overrides.

    None where there is neither. ConfigError where there are several.
    """
    from robustbench_local.config import reading

    words = [text for text in texts if "=" not in text]
    values = reading.parse([text for text in texts if "=" in text])
    names = [*words, *([str(values.pop(what))] if what in values else [])]
    if len(names) > 1:
        raise ConfigError(f"{', '.join(names)}: one {what} at a time, and all else as key=value, n=100")
    return (names[0] if names else None), values


def check_named(name: str | None, what: str) -> str:
    """ConfigError where no name was given, with those there are."""
    from robustbench_local.config import reading

    if name is None:
        known = ", ".join(reading.names(what))
        raise ConfigError(f"which {what}? Give {what}=NAME: one of {known}, or a path to a .yaml file")
    return name
