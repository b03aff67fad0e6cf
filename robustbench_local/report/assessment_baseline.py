"""The comparison with a folder of before, as an assessment has it: what changed, and what drop would have shown."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from robustbench_local.metrics.paired import noticeable
from robustbench_local.report.assessment_parts import Compared
from robustbench_local.report.compare import POWER, Change
from robustbench_local.report.results import Results

ALPHA = 0.05


def by_row(changes: Sequence[Change], after: Results) -> Mapping[str, Sequence[Compared]]:
    """{key of a row of the folder that is assessed: what changed of it}; compare()'s changes at the level ALPHA."""
    tested = sum(change.pair is not None for change in changes)
    random = {row.key for row in after.rows if row.stochastic}
    found: dict[str, list[Compared]] = defaultdict(list)
    for change in changes:
        compared = _compared(change, tested, random=bool(random & {*change.rows_after}))
        for key in change.rows_after:
            found[key].append(compared)
    return found


def _compared(change: Change, tested: int, random: bool) -> Compared:
    pair = change.pair
    drop = None
    if pair and not random:
        drop = _drop(pair.n, ALPHA / tested, (pair.only_first + pair.only_second) / pair.n)
    return Compared(
        part=change.part,
        name=change.name,
        what=change.what,
        before=change.before,
        after=change.after,
        n=pair.n if pair else None,
        lost=pair.only_first if pair else None,
        gained=pair.only_second if pair else None,
        p=change.p,
        noticeable=drop,
        differs=change.differs,
        rows_before=change.rows_before,
        rows=change.rows_after,
    )


@functools.cache
def _drop(n: int, alpha: float, churn: float) -> float | None:
    """Many cells share these, and it takes some milliseconds."""
    return noticeable(n, alpha, churn, POWER)
