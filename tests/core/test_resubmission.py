"""The chance of ten right draws in a row: exact over all choices of ten, and right on average where shares are luck."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from robustbench_local.core.resubmission import TRIES, withstands


@pytest.mark.parametrize("right", [0, 9, 10, 11, 13])
def test_it_is_the_mean_over_all_choices_of_ten(right: int) -> None:
    bits = np.arange(13) < right
    exact = np.mean([bits[list(chosen)].all() for chosen in combinations(range(13), TRIES)])
    found = withstands(np.array([right / 13]), 13)
    assert found is not None and found[0] == pytest.approx(exact, abs=1e-12)


def test_it_is_unbiased_where_the_share_to_the_tenth_is_not() -> None:
    p, draws = 0.9, 20
    shares = np.random.default_rng(0).binomial(draws, p, 200_000) / draws
    found = withstands(shares, draws)
    assert found is not None
    noise = 4 * found.std() / len(found) ** 0.5
    assert abs(found.mean() - p**TRIES) < noise
    assert abs((shares**TRIES).mean() - p**TRIES) > noise  # the broken twin


def test_fewer_draws_than_ten_say_nothing() -> None:
    assert withstands(np.ones(3), TRIES - 1) is None
    found = withstands(np.array([1.0, 0.9, 0.0]), TRIES)
    assert found is not None and found.tolist() == [1, 0, 0]
