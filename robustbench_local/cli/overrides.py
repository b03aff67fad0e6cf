"""key=value arguments, as a grid and a recipe take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustbench_local.core.errors import ConfigError


def name_and_overrides(texts: Sequence[str], what: str) -> tuple[str, dict[str, Any]]:
    """The value of the key `what`, and the other overrides. ConfigError where it is not given."""
    from robustbench_local.config import reading

    values = reading.parse(texts)
    name = values.pop(what, None)
    if name is None:
        known = ", ".join(reading.names(what))
        raise ConfigError(f"which {what}? Give {what}=NAME: one of {known}, or a path to a .yaml file")
    return str(name), values
