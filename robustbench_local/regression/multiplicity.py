"""Many comparisons in one run: limits such that a run of unchanged models fails with the risk alpha, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustbench_local.metrics.paired import holm
from robustbench_local.regression.judging import within
from robustbench_local.regression.lock import Entry
from robustbench_local.regression.outcome import Outcome


def settled(outcomes: Sequence[Outcome], alpha: float, expected: int = 0) -> list[Outcome]:
    """With Holm's limit (1979) of all comparisons in all outcomes; a check that is asked for twice counts once.

    expected: how many comparisons the whole run makes. Those still to come count as if they were certain to hold, so
    that a limit can only rise as more is known: what is rejected now is rejected in the end.
    """
    ps = {
        (outcome.name, each.kind, each.of, each.against): each.p for outcome in outcomes for each in outcome.hypotheses
    }
    count = max(expected, len(ps))
    adjusted = holm([*ps.values(), *[1.0] * (count - len(ps))])
    rejected = sum(p < alpha for p in adjusted)
    limit = alpha / max(1, count - rejected)  # below it are exactly those that Holm rejects
    return [within(outcome, limit) for outcome in outcomes]


def expected(entries: Iterable[Entry], tests: set[str]) -> int:
    """How many comparisons these tests make, by what the lock says; all that it knows, where one of them is new."""
    entries = list(entries)
    known = {test for entry in entries for test in entry.tests}
    own = entries if tests - known else [entry for entry in entries if tests & {*entry.tests}]
    return sum(entry.comparisons for entry in own)
