"""What templates write most often, against the HTML that a browser is to get."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from robustbench_local.metrics.rates import Rate
from robustbench_local.report import fragments
from robustbench_local.report.certified import Certified
from robustbench_local.report.page import environment

ROBUST, CLEAN = Rate(0.5, 0.4123, 0.61), Rate(0.9, 0.85, 1.0)


def test_figures_and_their_intervals() -> None:
    assert fragments.percent(0.46249) == "46.2" and fragments.between(CLEAN) == "85.0–100.0"
    assert fragments.figure(ROBUST) == '50.0<small><span class="spoken">, interval </span>41.2–61.0</small>'
    assert fragments.figure(None) == fragments.dash("no result") != fragments.figure(None, "failed")


@pytest.mark.parametrize(
    ("more", "kind", "style"),
    [
        ({}, "bar", "--r:50.0;--lo:41.2;--hi:61.0"),
        ({"clean": CLEAN, "slim": True}, "bar slim", "--c:90.0;--r:50.0;--lo:41.2;--hi:61.0"),
        ({"certified": Certified(Rate(0.3, 0.2, 0.4))}, "bar certain", "--k:30.0;--r:50.0;--lo:41.2;--hi:61.0"),
        ({"certified": Certified(None, "nobody knows")}, "bar", "--r:50.0;--lo:41.2;--hi:61.0"),
    ],
)
def test_bars(more: dict[str, object], kind: str, style: str) -> None:
    assert fragments.bar(ROBUST, **more) == f'<span class="{kind}" style="{style}"></span>'  # type: ignore[arg-type]


def test_a_reason_is_shown_and_not_obeyed() -> None:
    assert fragments.dash("<b>") == '<span class="dash">–<span class="spoken"> &lt;b&gt;</span></span>'
    assert isinstance(fragments.dash("<b>"), Markup)


def test_templates_have_them_by_their_names() -> None:
    source = '{% import "parts.html.j2" as part with context %}{{ part.bar(rate, slim=true) }}{{ part.dash("<") }}'
    assert environment().from_string(source).render(rate=ROBUST) == (
        fragments.bar(ROBUST, slim=True) + fragments.dash("<")
    )
