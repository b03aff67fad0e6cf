"""Spearman's rank correlation, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robustbench_local.metrics.rank_correlation import spearman


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, and next to none
def test_it_is_scipys(levels: int) -> None:
    random = np.random.default_rng(levels)
    a, b = random.integers(0, levels, (2, 5, 60))
    b = b + a // 2
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert np.allclose(spearman(a, b), expected, atol=1e-12)
    pearson = [np.corrcoef(x, y)[0, 1] for x, y in zip(a**3, b, strict=True)]
    assert not np.allclose(spearman(a**3, b), pearson, atol=1e-3)  # the twin: of values, not of ranks


def test_where_nothing_is_ranked_there_is_none() -> None:
    assert np.isnan(spearman(np.ones((1, 9)), np.arange(9.0)[None])).all()
    assert spearman(np.arange(9.0)[None], -(np.arange(9.0)[None] ** 3)) == pytest.approx([-1.0])
