"""Shares as colours of cells: from paper to teal, and for dark paper a calm twin of each, on which light ink reads."""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = 24
_LIGHT = ("#f3efe6", "#a9d0c9", "#1b6e6a")
_DARK = ("#1e2327", "#204644", "#1f736e")


def shade(share: float) -> str:
    """The colour of a share in [0, 1], of so many steps that each has its twin."""
    return _COLOURS[round(share * _STEPS)]


def ink(share: float) -> str:
    """The colour of writing on that shade, by daylight: whichever stands out more."""
    return ON_DEEP if round(share * _STEPS) >= _DEEP * _STEPS else ON_PALE


def _between(colours: Sequence[str], share: float) -> str:
    """Piecewise linear between colours that are evenly spaced."""
    place = share * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    one, two = (bytes.fromhex(colours[each][1:]) for each in (first, first + 1))
    mixed = [round(a + (b - a) * (place - first)) for a, b in zip(one, two, strict=True)]
    return f"#{bytes(mixed).hex()}"


_COLOURS = tuple(_between(_LIGHT, step / _STEPS) for step in range(_STEPS + 1))
ON_PALE, ON_DEEP = "#000000", "#ffffff"
_DEEP = 0.88  # from which white stands out more than black
NIGHT = {light: _between(_DARK, step / _STEPS) for step, light in enumerate(_COLOURS)} | {ON_PALE: "#f1efea"}
