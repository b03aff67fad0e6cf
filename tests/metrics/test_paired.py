"""Paired comparisons: against scipy, published figures and enumeration; coverage and error rates by simulation."""

from __future__ import annotations

from itertools import product
from time import process_time

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, binomtest, permutation_test

from robustbench_local.core.errors import DataError
from robustbench_local.metrics import paired, rates
from robustbench_local.metrics.paired import compare, holm, mcnemar, newcombe, noticeable, power, ranks, sign_flip

Floats = npt.NDArray[np.float64]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, where tests and intervals are simulated by the hundred."""
    monkeypatch.setattr(rates, "ROUNDS", 499)
    monkeypatch.setattr(paired, "FLIPS", 999)


@pytest.mark.parametrize(("b", "c"), [(12, 2), (0, 5), (7, 7), (40, 21)])
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_mcnemar_is_a_binomial_test_of_the_images_that_disagree(b: int, c: int, alternative: str) -> None:
    first = np.repeat([1, 1, 0, 0], [30, b, c, 9])
    second = np.repeat([1, 0, 1, 0], [30, b, c, 9])
    found = compare(first, second, alternative)  # type: ignore[arg-type]
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p == pytest.approx(binomtest(b, b + c, 0.5, alternative).pvalue)  # type: ignore[arg-type]


def test_mcnemar_by_hand() -> None:
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(5, 0, "greater") == pytest.approx(1 / 32)
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("n", "drop", "churn"), [(60, 0.1, 0.0), (200, 0.05, 0.2), (500, 0.02, 0.03)])
def test_power_is_how_often_drawn_images_are_noticed(n: int, drop: float, churn: float) -> None:
    share = max(drop, churn)
    sides = [(share + drop) / 2, (share - drop) / 2, 1 - share]
    lost, gained, _ = np.random.default_rng(0).multinomial(n, sides, 40_000).T
    p = np.minimum(1, 2 * binom.sf(lost - 1, lost + gained, 0.5))
    noticed = float(((p < 0.05) & (lost > gained)).mean())
    assert power(n, 0.05, drop, churn) == pytest.approx(noticed, abs=0.01)
    assert abs(power(n, 0.1, drop, churn) - noticed) > 0.02  # of one side


def test_the_noticeable_drop_has_the_wanted_power_and_moves_images_itself() -> None:
    for exchanged in (0.0, 0.1):
        drop = noticeable(200, 0.05, wanted=0.9, exchanged=exchanged)
        assert drop is not None
        assert power(200, 0.05, drop, exchanged + drop) >= 0.9 > power(200, 0.05, drop - 2e-5, exchanged + drop)
    assert noticeable(200, 0.05, exchanged=0.1) > noticeable(200, 0.05, 0.1)  # type: ignore[operator]
    assert noticeable(5, 0.05) is None


def test_newcombe_gives_his_published_interval() -> None:
    found = newcombe(36, 12, 2, 0)  # Newcombe 1998, table II: 0.0569 to 0.3404
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_interval_of_the_difference_covers() -> None:
    generator, runs, cells = np.random.default_rng(1), 1500, [0.5, 0.15, 0.05, 0.3]
    found = [newcombe(*(int(k) for k in ks)) for ks in generator.multinomial(150, cells, runs)]
    hits = sum(each.low <= 0.1 <= each.high for each in found)
    assert binom.ppf(0.001, runs, 0.94) <= hits <= binom.ppf(0.999, runs, 0.97)


def test_pairing_makes_the_interval_narrower_than_that_of_two_separate_sets() -> None:
    paired, separate = newcombe(80, 5, 2, 13), newcombe(70, 15, 12, 3)  # the same two rates, 0.85 and 0.82
    assert paired.value == pytest.approx(separate.value)
    assert paired.high - paired.low < 0.6 * (separate.high - separate.low)


def test_sign_flip_of_few_images_agrees_with_every_pattern_of_signs() -> None:
    apart = np.array([0.5, -0.1, 0.3, 0.2, 0.4, -0.05, 0.25, 0.1])
    sums = [float(np.dot(signs, np.abs(apart))) for signs in product([-1, 1], repeat=8)]
    both = np.mean(np.abs(sums) >= abs(apart.sum()) - 1e-9)
    more = np.mean(np.array(sums) >= apart.sum() - 1e-9)
    assert sign_flip(apart) == pytest.approx(both, abs=0.004)
    assert sign_flip(apart, "greater") == pytest.approx(more, abs=0.004)
    assert sign_flip(-apart, "less") == pytest.approx(more, abs=0.004)


def test_sign_flip_agrees_with_scipy() -> None:
    generator = np.random.default_rng(2)
    one, two = generator.binomial(20, 0.6, 60) / 20, generator.binomial(20, 0.57, 60) / 20
    expected = permutation_test(
        (one, two), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, rng=generator
    )
    assert compare(one, two).p == pytest.approx(expected.pvalue, abs=0.02)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_sign_flip_of_many_images_goes_on_where_that_of_few_ends(
    alternative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = np.random.default_rng(7).integers(-9, 11, 400) / 20
    normal = sign_flip(apart, alternative)  # type: ignore[arg-type]
    monkeypatch.setattr(paired, "_MANY", 1000)
    assert normal == pytest.approx(sign_flip(apart, alternative), abs=0.01)  # type: ignore[arg-type]
    assert 0.001 < normal < 0.999


def test_sign_flip_of_bits_is_mcnemar() -> None:
    apart = np.repeat([1.0, -1.0, 0.0], [9, 3, 50])
    assert sign_flip(apart) == pytest.approx(mcnemar(9, 3))


@pytest.mark.usefixtures("quick")
def test_sign_flip_errs_as_often_as_it_says() -> None:
    generator, runs = np.random.default_rng(3), 150
    of_image = generator.beta(0.6, 0.4, 80)
    ps = [compare(*(generator.binomial(20, of_image, (2, 80)) / 20)).p for _ in range(runs)]
    assert sum(p < 0.1 for p in ps) <= binom.ppf(0.999, runs, 0.1)
    assert sum(p < 0.5 for p in ps) >= binom.ppf(0.001, runs, 0.5)  # and it is no test that never says anything


@pytest.mark.usefixtures("quick")
def test_shares_interval_covers() -> None:
    generator, runs = np.random.default_rng(4), 150
    hits = 0
    for _ in range(runs):
        of_image = generator.beta(1, 1, 100)
        one, two = generator.binomial(20, of_image) / 20, generator.binomial(20, of_image * 0.8) / 20
        found = compare(one, two).difference
        hits += found.low <= 0.1 <= found.high
    assert hits >= binom.ppf(0.001, runs, 0.94)


@pytest.mark.parametrize("pair", [([1, 1, 1], [1, 1, 1]), ([0, 0], [0, 0]), ([1.0], [0.0]), ([0.5, 1], [0.5, 1])])
def test_degenerate_pairs_have_an_interval_of_some_width(pair: tuple[list[float], list[float]]) -> None:
    found = compare(*pair)
    assert found.p == 1.0
    assert -1 <= found.difference.low < found.difference.value + 1e-12
    assert found.difference.value - 1e-12 < found.difference.high <= 1
    assert found.difference.high - found.difference.low > 0.1


@pytest.mark.parametrize("pair", [([1, 1], [1]), ([], []), ([[1, 0]], [[1, 0]])])
def test_other_images_cannot_be_compared(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(DataError, match="same images"):
        compare(*pair)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def of_rates(generator: np.random.Generator, rates: list[float], n: int) -> dict[str, Floats]:
    """Bits of models that find the same images hard."""
    hardness = generator.random(n)
    noise = generator.random((len(rates), n))
    mixed = np.where(generator.random((len(rates), n)) < 0.5, hardness, noise)
    return {f"model {place}": (row < p).astype(float) for place, (p, row) in enumerate(zip(rates, mixed, strict=True))}


def test_ranks_tell_apart_what_differs_and_tie_what_does_not() -> None:
    found = ranks(of_rates(np.random.default_rng(5), [0.9, 0.62, 0.6, 0.2], 1000))
    assert [str(rank) for rank in found.values()] == ["1", "2-3", "2-3", "4"]
    assert [rank.tied for rank in found.values()] == [False, True, True, False]


def test_equal_accuracies_share_a_place() -> None:
    found = ranks({"a": [1, 1, 0, 0], "b": [0, 0, 1, 1], "c": [1, 0, 0, 0]})
    assert [rank.place for rank in found.values()] == [1, 1, 3]
    assert {str(rank) for rank in found.values()} == {"1-3"}


def test_one_model_is_first_and_none_has_no_rank() -> None:
    assert str(ranks({"only": [0, 0]})["only"]) == "1"
    assert ranks({}) == {}


def test_rank_intervals_hold_all_together_where_unadjusted_tests_do_not() -> None:
    generator, runs, equal = np.random.default_rng(6), 50, [0.5] * 6
    wrong, unadjusted = 0, 0
    for _ in range(runs):
        made = of_rates(generator, equal, 300)
        wrong += any(rank.best > 1 or rank.worst < 6 for rank in ranks(made).values())
        names = list(made)
        unadjusted += any(
            compare(made[one], made[two]).p < 0.05 for place, one in enumerate(names) for two in names[:place]
        )
    assert wrong <= binom.ppf(0.999, runs, 0.05)
    assert unadjusted > binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("draws", [1, 20])
def test_ranks_are_those_of_every_pair_tested_by_itself(draws: int) -> None:
    generator = np.random.default_rng(8)
    hardness = generator.random(120)
    made = {str(k): generator.binomial(draws, np.clip(hardness * k / 4, 0, 1)) / draws for k in (1, 2, 3, 4, 8)}
    pairs = [(one, two) for one in made for two in made if one < two]
    ps = dict(zip(pairs, holm([sign_flip(made[one] - made[two]) for one, two in pairs]), strict=True))
    for name, rank in ranks(made).items():
        told = [two if one == name else one for (one, two), p in ps.items() if p <= 0.05 and name in (one, two)]
        better = sum(made[other].mean() > made[name].mean() for other in told)
        assert (rank.best, rank.worst) == (1 + better, len(made) - (len(told) - better))
    assert len({str(rank) for rank in ranks(made).values()}) > 2  # some are told apart, and some are not


def test_ranks_of_hundreds_of_models_are_quick() -> None:
    made = of_rates(np.random.default_rng(9), np.linspace(0.2, 0.8, 400).tolist(), 100)
    started = process_time()
    assert ranks(made)["model 399"].best < 150
    assert process_time() - started < 3  # each pair by itself takes 80,000 tests, ten seconds and more
