"""The page of a run of checks: verdicts, figures, and pictures of the images that changed sides."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustbench_local.regression.outcome import LESS_ROBUST, Outcome
from robustbench_local.regression.words import AGAINST, UNDER, probability, reasons
from robustbench_local.report.page import environment, policy

NAME = "robustness.html"


def page(outcomes: Sequence[Outcome]) -> str:
    """One HTML file that needs no other; the same outcomes give the same page."""
    counts = {verdict: sum(outcome.verdict == verdict for outcome in outcomes) for verdict in ("worse", "cannot judge")}
    return (
        environment()
        .get_template("regression.html.j2")
        .render(
            outcomes=[(outcome, reasons(outcome), _comparisons(outcome)) for outcome in outcomes],
            counts=counts,
            under=UNDER,
            policy=policy("'none'"),
        )
    )


def _comparisons(outcome: Outcome) -> list[dict[str, object]]:
    """A line of the table for each."""
    return [
        {
            "what": UNDER[each.of] if each.kind == LESS_ROBUST else "attacks of now beside old images",
            "against": AGAINST[each.against],
            "each": each,
            "p": probability(each.p),
            "limit": probability(each.limit),
            "caught": None if each.noticeable is None else math.ceil(1000 * each.noticeable - 1e-9) / 10,
        }
        for each in outcome.comparisons
    ]
