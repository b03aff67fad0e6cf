"""Intervals of rates: against scipy and by hand, and how often they hold what they should, by simulation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, binomtest, bootstrap

from robustbench_local.core.errors import DataError
from robustbench_local.metrics import rates
from robustbench_local.metrics.rates import cluster_bootstrap, method, rate, sidak, simultaneous, wilson
from robustbench_local.report.text import percent

Bits = npt.NDArray[np.bool_]


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.959964: (8 + 1.920729) / 13.841459 -+ 1.959964 * sqrt(1.6 + 0.960365) / 13.841459
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 500), (500, 500), (37, 100), (8877, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_agrees_with_scipy(k: int, n: int, confidence: float) -> None:
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_a_random_model_lies_between_its_whole_neighbours() -> None:
    low, high = wilson(36.4, 100)
    assert wilson(36, 100)[0] < low < wilson(37, 100)[0]
    assert wilson(36, 100)[1] < high < wilson(37, 100)[1]


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 10), (11, 10), (math.nan, 10)])
def test_wilson_refuses_what_is_no_rate(k: float, n: int) -> None:
    with pytest.raises(DataError, match=r"0 \.\. n"):
        wilson(k, n)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, where intervals are simulated by the hundred."""
    monkeypatch.setattr(rates, "ROUNDS", 499)


def least_hits(runs: int, share: float = 0.95) -> int:
    """What an interval of that coverage falls below once in a thousand times."""
    return int(binom.ppf(0.001, runs, share))


@pytest.mark.parametrize(("n", "p"), [(50, 0.5), (200, 0.1), (1000, 0.47)])
def test_wilson_covers(n: int, p: float) -> None:
    runs = 4000
    interval = [wilson(k, n) for k in range(n + 1)]
    ks = np.random.default_rng(5).binomial(n, p, runs)
    hits = sum(interval[k][0] <= p <= interval[k][1] for k in ks)
    assert hits >= least_hits(runs, 0.94)  # the coverage of any interval of a binomial waves around its level
    assert hits <= binom.ppf(0.999, runs, 0.97)  # nor is it far too wide


def a_random_model(generator: np.random.Generator, n: int, draws: int, p: float, alike: float) -> Bits:
    """(N, R) bits: each image has a rate of its own, Beta distributed around p; alike: how much its draws agree."""
    of_image = generator.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, n)
    return np.asarray(generator.random((n, draws)) < of_image[:, None])


@pytest.mark.usefixtures("quick")
def test_bootstrap_covers_random_models_where_draws_taken_for_images_do_not() -> None:
    generator, runs, p = np.random.default_rng(6), 200, 0.6
    made = [a_random_model(generator, 200, 20, p, alike=0.5) for _ in range(runs)]
    found = [rate(bits.mean(1)) for bits in made]
    naive = [wilson(int(bits.sum()), bits.size) for bits in made]
    assert sum(each.low <= p <= each.high for each in found) >= least_hits(runs, 0.94)
    assert sum(low <= p <= high for low, high in naive) < least_hits(runs, 0.94)


@pytest.mark.usefixtures("quick")
def test_a_mean_of_shares_prints_as_the_mean_of_all_draws_does() -> None:
    generator = np.random.default_rng(8)
    for robust in range(3, 6000, 60):  # of 6,000 draws: halves of a tenth of a percent
        bits = generator.permutation(np.arange(6000) < robust).reshape(300, 20)
        assert percent(rate(bits.mean(1)).value) == percent(float(bits.mean())), robust


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("p", [0.004, 0.5, 0.996])
def test_intervals_of_random_models_cover_near_the_ends_too(p: float) -> None:
    generator, runs = np.random.default_rng(7), 150
    found = [rate(a_random_model(generator, 300, 20, p, alike=0.3).mean(1)) for _ in range(runs)]
    assert sum(each.low <= p <= each.high for each in found) >= least_hits(runs, 0.94)


def test_bootstrap_agrees_with_scipy() -> None:
    shares = a_random_model(np.random.default_rng(8), 150, 20, 0.4, alike=0.4).mean(1)
    expected = bootstrap((shares,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(9))
    interval = expected.confidence_interval
    assert cluster_bootstrap(shares) == pytest.approx((interval.low, interval.high), abs=0.004)


def test_bootstrap_is_narrower_than_coins_and_wider_than_draws_alone() -> None:
    shares = np.full(400, 0.5) + np.linspace(-0.2, 0.2, 400).round(2)
    low, high = cluster_bootstrap(shares)
    coin = wilson(shares.sum(), 400)
    spread = shares.std(ddof=1) / math.sqrt(400)
    assert high - low < (coin[1] - coin[0]) / 2
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.05)


@pytest.mark.parametrize("shares", [[0.0] * 30, [1.0] * 30, [1.0] * 29 + [0.95], [0.5]])
def test_what_hardly_varies_gets_wilsons_interval_and_never_one_of_no_width(shares: list[float]) -> None:
    found = rate(shares)
    assert method(shares) == "Wilson"
    assert (found.low, found.high) == wilson(sum(shares), len(shares))
    assert found.high - found.low > 0.05


def test_bits_get_wilsons_interval_and_shares_the_bootstrap() -> None:
    assert method(np.arange(100) % 2) == "Wilson"
    assert method(np.arange(100) % 3 / 2) == "cluster bootstrap over images and their draws"


@pytest.mark.parametrize("shares", [[], [1.1], [-0.1, 0.5], [math.nan]])
def test_a_rate_of_what_is_no_share_is_refused(shares: list[float]) -> None:
    with pytest.raises(DataError, match="share"):
        rate(shares)


def test_sidak_by_hand() -> None:
    assert sidak(10) == pytest.approx(0.9948838031)  # 0.95 ** 0.1
    assert sidak(1) == 0.95


def test_intervals_of_classes_hold_all_together_and_plain_ones_do_not() -> None:
    generator, runs, n = np.random.default_rng(10), 600, 200
    ps = np.linspace(0.25, 0.75, 10)
    together, plain = 0, 0
    table = {level: [wilson(k, n, level) for k in range(n + 1)] for level in (0.95, sidak(10))}
    for ks in generator.binomial(n, ps, (runs, 10)):
        hold = {
            level: all(ends[k][0] <= p <= ends[k][1] for k, p in zip(ks, ps, strict=True))
            for level, ends in table.items()
        }
        together, plain = together + hold[sidak(10)], plain + hold[0.95]
    assert together >= least_hits(runs, 0.94)
    assert plain < least_hits(runs, 0.8)


def test_simultaneous_is_wilson_at_sidaks_level() -> None:
    first, second = simultaneous([[1, 1, 0, 1], [0, 0]])
    assert (first.low, first.high) == pytest.approx(wilson(3, 4, math.sqrt(0.95)))
    assert (second.low, second.high) == pytest.approx(wilson(0, 2, math.sqrt(0.95)))
