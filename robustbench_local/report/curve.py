"""Robust accuracy over eps: of every radius that was attacked, carried on by minimum-norm attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from robustbench_local.metrics.curves import nested, robust_at
from robustbench_local.metrics.rates import Floats
from robustbench_local.report.table import Line, SharesOf, Table, worst_case
from robustbench_local.storage.npz import Array
from robustbench_local.storage.row import Row, clean_shares, done

_BETWEEN = (0.25, 0.5, 0.75, 1.5, 2.0)  # of the widest eps: where minimum-norm attacks carry a curve on


def curve(
    places: Sequence[tuple[Table, Line]], shares_of: SharesOf, arrays: Callable[[Row], Mapping[str, Array]]
) -> Iterator[tuple[float, str, Floats]]:
    """(eps, attacks, shares (N,)) from eps 0 on, of one model in the tables of one norm; nothing of a single eps.

    attacks: "none" (clean), "all" of the table at that eps, or "minimum-norm" where no table is of that eps. A table
    without a worst case gives no point: a figure of those attacks that did run would be too high.
    """
    rows = [row for _, line in places for row in line.rows if done(row)]
    nearest = [row for row in rows if row.minimises and row.adaptive]
    points = {0.0: clean_shares(arrays(rows[0]))} if rows else {}
    gaps = set()
    for table, line in places:
        eps = next(row.eps for row in line.rows if row is not None)
        shares = worst_case(table, line, shares_of)
        if shares is None:
            gaps.add(eps)
        else:
            points[eps] = shares
    measured = set(points)
    if nearest:
        widest = max(measured | gaps)
        for eps in (measured | {share * widest for share in _BETWEEN}) - gaps - {0.0}:
            each = [at(arrays(row), eps) for row in nearest]
            points[eps] = np.minimum.reduce([*each, points[eps]] if eps in points else each)
    if len(points) < 3 and not nearest:
        return
    for eps, shares in nested(points).items():
        yield eps, "none" if eps == 0 else "all" if eps in measured else "minimum-norm", shares


def at(arrays: Mapping[str, Array], eps: float) -> Floats:
    """(N,) shares that are robust to a minimum-norm attack at eps, from the arrays of its row."""
    distance, success = (arrays[name].astype(np.float64) for name in ("distance", "success"))
    return robust_at(eps, distance, success, clean_shares(arrays))
