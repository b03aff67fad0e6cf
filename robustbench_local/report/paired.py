"""Two models, or two runs, on the same images: is the difference more than luck?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from robustbench_local.report.table import Line, Table, done
from robustbench_local.store import Row

ALPHA = 0.05


def mcnemar(lost: npt.ArrayLike, gained: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Exact two-sided p-value of McNemar (1947): lost images only the first got right, gained only the second did.

    Images on which both agree say nothing; each of the others is a fair coin if there is no difference.
    """
    lost, gained = np.asarray(lost), np.asarray(gained)
    tail: npt.NDArray[np.float64] = stats.binom.cdf(np.minimum(lost, gained), lost + gained, 0.5)
    return np.minimum(2 * tail, 1.0)


def least(line: Line, standing: Callable[[Row], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64] | None:
    """(N,) how each image stood all attacks of the table, the worst per image; None where a cell is missing."""
    good = [row for row in line.rows if done(row)]
    return np.minimum.reduce([standing(row) for row in good]) if len(good) == len(line.rows) else None


def ranks(table: Table, standing: Callable[[Row], npt.NDArray[np.float64]]) -> list[int | None]:
    """Per line 1 + how many lines are better by McNemar's test at 5 %; None where there is no worst case.

    Lines that this cannot tell apart share a rank. An image of a random model stands if it does on most draws.
    """
    found: list[int | None] = [None] * len(table.lines)
    worst = [(place, bits) for place, line in enumerate(table.lines) if (bits := least(line, standing)) is not None]
    if not worst:
        return found
    stands = np.stack([bits > 0.5 for _, bits in worst]).astype(np.float32)
    only: npt.NDArray[Any] = np.rint(stands @ (1 - stands).T).astype(np.int64)  # (L, L): stands in row, not in column
    better = (only > only.T) & (mcnemar(only, only.T) < ALPHA)
    so_far = 1
    for (place, _), above in zip(worst, better.sum(0), strict=True):
        so_far = max(so_far, 1 + int(above))
        found[place] = so_far
    return found
