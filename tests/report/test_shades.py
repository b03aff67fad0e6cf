"""Cells of heat maps: ink reads on each, on light and on dark paper."""

from __future__ import annotations

import numpy as np
import pytest

from robustbench_local.report.drawing import heat, style
from robustbench_local.report.shades import NIGHT, ink, shade
from robustbench_local.report.svg import svg

SHARES = np.linspace(0, 1, 101)


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (byte / 255 for byte in bytes.fromhex(colour[1:]))
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, two: str) -> float:
    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("share", SHARES)
def test_ink_reads_on_every_shade(share: float) -> None:
    assert contrast(shade(share), ink(share)) >= 4.5
    assert contrast(NIGHT[shade(share)], NIGHT.get(ink(share), ink(share))) >= 4.5


def test_dark_paper_has_no_bright_cell_and_more_stays_more() -> None:
    night = [luminance(NIGHT[shade(share)]) for share in SHARES]
    assert max(night) < 0.2 < luminance(shade(0)), "the broken twin: the colours of light paper"
    assert night == sorted(night) and night[0] < night[-1]


def test_a_heat_map_turns_with_the_paper() -> None:
    with style():
        figure, _ = heat(np.array([[0.0, 1.0], [0.5, np.nan]]), ["a", "b"], ["x", "y"])
        text = svg(figure)
    light, dark = text.split("@media (prefers-color-scheme:dark)")
    for share in (0.0, 0.5, 1.0):
        assert shade(share) in light and NIGHT[shade(share)] in dark
    assert "<image" not in text and "–" in text
