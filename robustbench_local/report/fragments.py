"""What templates write thousands of times, as HTML: a macro's call takes ten times as long."""

from __future__ import annotations

from markupsafe import Markup

from robustbench_local.core.escaping import shown
from robustbench_local.metrics.rates import Rate
from robustbench_local.report.certified import Certified
from robustbench_local.report.text import DASH
from robustbench_local.report.text import percent as in_percent


def percent(share: float) -> Markup:
    return Markup(in_percent(share))


def between(rate: Rate) -> Markup:
    """Its interval."""
    return Markup(f"{in_percent(rate.low)}–{in_percent(rate.high)}")


def dash(why: str) -> Markup:
    """In place of a figure; who cannot see it hears why."""
    return Markup(f'<span class="dash">{DASH}<span class="spoken"> {shown(why, "html")}</span></span>')


def figure(rate: Rate | None, why: str = "no result") -> Markup:
    if rate is None:
        return dash(why)
    interval = f'<small><span class="spoken">, interval </span>{between(rate)}</small>'
    return Markup(f"{in_percent(rate.value)}{interval}")


def bar(robust: Rate, clean: Rate | None = None, slim: bool = False, certified: Certified | None = None) -> Markup:
    """robust as a bar with its interval, in front of clean; at its left what is certified."""
    below = certified.rate if certified is not None else None
    style = [f"--c:{in_percent(clean.value)}"] if clean is not None else []
    style += [f"--k:{in_percent(below.value)}"] if below is not None else []
    style += [f"--r:{in_percent(robust.value)}", f"--lo:{in_percent(robust.low)}", f"--hi:{in_percent(robust.high)}"]
    kind = f"bar{' slim' * slim}{' certain' * (below is not None)}"
    return Markup(f'<span class="{kind}" style="{";".join(style)}"></span>')
