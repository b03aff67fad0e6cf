"""Times and sizes as people write them: "30m", "4GiB"."""

from __future__ import annotations

import re

from robustbench_local.core.errors import ConfigError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def seconds(text: str | int | float, what: str) -> float:
    """Of 90, "90s", "30m", "2h" or "1d". ConfigError otherwise, and for nothing at all."""
    number, unit = _split(text)
    if number is None or unit not in _SECONDS or not number > 0:
        raise ConfigError(f'{what} is {text!r}: it must be a time above 0, such as "90s", "30m" or "2h"')
    return number * _SECONDS[unit]


def size(text: str | int | float, what: str) -> int:
    """Bytes of "4GiB", "4G" or "500MB". ConfigError otherwise, and for nothing at all."""
    number, unit = _split(text)
    plain = unit.removesuffix("b")
    binary = plain.endswith("i")
    plain = plain.removesuffix("i")
    if number is None or plain not in _BYTES or (binary and not plain) or not number > 0:
        raise ConfigError(f'{what} is {text!r}: it must be an amount of memory above 0, such as "4GiB" or "500MB"')
    power = list(_BYTES).index(plain)
    return int(number * (1024**power if binary else _BYTES[plain]))


def _split(text: str | int | float) -> tuple[float | None, str]:
    found = _NUMBER.fullmatch(str(text))
    return (float(found[1]), found[2].lower()) if found and not isinstance(text, bool) else (None, "")
