"""Two models, two attacks or two runs on the same images: whether they differ, by how much, and who comes first."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustbench_local.core.errors import DataError
from robustbench_local.metrics.rates import CONFIDENCE, Floats, Ints, Rate, cluster_bootstrap, wilson

Alternative = Literal["two-sided", "less", "greater"]
Bits = npt.NDArray[np.bool_]

FLIPS = 19_999  # random sign patterns, where they are too many to count
_ENOUGH = 10  # images that differ, below which their differences' percentiles say nothing
_MANY = 200  # images that differ, above which the sum of their signed differences is as good as normal


@dataclass(frozen=True)
class Paired:
    """What the same n images say of two.

    first, second    their accuracies
    only_first       images on which the first is better (fixed models: right where the second is wrong)
    only_second      the other way round
    difference       first - second, with its interval
    p                of the paired test
    """

    n: int
    first: float
    second: float
    only_first: int
    only_second: int
    difference: Rate
    p: float


def compare(
    first: npt.ArrayLike, second: npt.ArrayLike, alternative: Alternative = "two-sided", confidence: float = CONFIDENCE
) -> Paired:
    """Compare shares (N,) of two on the same images: bits, or a random model's shares of draws.

    Bits: the exact test of McNemar (1947) and the interval of Newcombe (1998). Shares: the sign-flip test, of which
    McNemar's is the case of bits, and the bootstrap over images. alternative="greater": that the first is better.
    DataError where the two are not of one length, or empty.
    """
    one, two = (np.asarray(each, dtype=np.float64) for each in (first, second))
    if one.shape != two.shape or one.ndim != 1 or not len(one):
        raise DataError(f"shares of {one.shape} and {two.shape} images: a paired comparison is on the same images")
    apart = one - two
    return Paired(
        n=len(one),
        first=float(one.mean()),
        second=float(two.mean()),
        only_first=int((apart > 0).sum()),
        only_second=int((apart < 0).sum()),
        difference=_difference(one, two, confidence),
        p=sign_flip(apart, alternative),
    )


@functools.lru_cache(maxsize=2**16)  # the same few outcomes are asked about again and again
def mcnemar(only_first: int, only_second: int, alternative: Alternative = "two-sided") -> float:
    """Exact p of McNemar's test (1947): the images on which the two disagree are fair coins. 1 where there is none."""
    disagree = only_first + only_second
    if alternative == "two-sided":
        return float(_two_sided(np.array(min(only_first, only_second)), np.array(disagree)))
    from scipy import special  # here and below: not stats, which takes a second to load

    least = only_first if alternative == "greater" else only_second
    return float(special.bdtrc(least - 1, disagree, 0.5))


def _two_sided(fewer: Ints, disagree: Ints) -> Floats:
    """p of so many pairs at once: of the images on which a pair disagrees, `fewer` speak for one of the two."""
    from scipy import special

    found: Floats = np.minimum(1.0, 2 * special.bdtr(fewer, disagree, 0.5))  # both tails of fair coins are alike
    return found


def power(n: int, alpha: float, drop: float, churn: float = 0.0) -> float:
    """The chance that McNemar's exact test (p < alpha) notices a true drop of an accuracy on n images.

    The share c = max(churn, drop) of images changes sides, K ~ Bin(n, c) of the n, and of these L ~ Bin(K, (1 + drop/c)
    / 2) are lost: P(p(L, K - L) < alpha and 2 L > K), the test being two-sided; one-sided at alpha is this at 2 alpha.
    """
    from scipy import stats

    share = max(churn, drop)
    disagree = np.arange(stats.binom.ppf(1e-9, n, share), stats.binom.isf(1e-9, n, share) + 1)
    least = stats.binom.isf(np.nextafter(alpha / 2, 0), disagree, 0.5)  # more than that are significantly many
    lost = stats.binom.sf(least, disagree, (1 + drop / share) / 2)
    return float(stats.binom.pmf(disagree, n, share) @ lost)


def noticeable(n: int, alpha: float, churn: float = 0.0, wanted: float = 0.8, exchanged: float = 0.0) -> float | None:
    """The smallest true drop of an accuracy on n images that McNemar's exact test (p < alpha) notices with the `wanted`
    power, see `power`. None where no drop is large enough.

    churn: the share of images that change sides in all, or as many as the drop where that is more. exchanged: the
    share of those that do beside the drop itself.
    """

    def chance(drop: float) -> float:
        return power(n, alpha, drop, min(1.0, max(churn, exchanged + drop)))

    low, high = 0.0, 1.0
    if chance(high) < wanted:
        return None
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= wanted else (middle, high)
    return high


def sign_flip(apart: npt.ArrayLike, alternative: Alternative = "two-sided") -> float:
    """p of differences (N,) under the hypothesis that each is as likely with either sign (Fisher 1935).

    Exact where they are of one size, which is McNemar's test; otherwise by 19,999 random patterns of signs from a
    fixed seed, differences of one size drawn together; above 200 differences by the normal limit of these.
    """
    values = np.asarray(apart, dtype=np.float64)
    sizes, counts = np.unique(np.abs(values[values != 0]).round(12), return_counts=True)
    if len(sizes) < 2:
        return mcnemar(int((values > 0).sum()), int((values < 0).sum()), alternative)
    if counts.sum() > _MANY:
        z = values.sum() / math.sqrt(float(counts @ sizes**2))
        from scipy import stats

        tail = {"greater": z, "less": -z}.get(alternative, abs(z))
        return float(min(1.0, stats.norm.sf(tail) * (2 if alternative == "two-sided" else 1)))
    plus = np.random.default_rng(0).binomial(counts, 0.5, (FLIPS, len(sizes)))
    sums, seen = (2 * plus - counts) @ sizes, values.sum()
    match alternative:
        case "greater":
            extreme = sums >= seen - 1e-9
        case "less":
            extreme = sums <= seen + 1e-9
        case _:
            extreme = np.abs(sums) >= abs(seen) - 1e-9
    return float((1 + extreme.sum()) / (1 + FLIPS))


def newcombe(both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE) -> Rate:
    """Difference of two paired rates: Newcombe (1998), method 10. Squares of Wilson's reaches add, less what the
    correlation (corrected for continuity) takes away."""
    n = both + only_first + only_second + neither
    alike = both * neither - only_first * only_second
    product = max(alike - n / 2, 0.0) if alike > 0 else float(alike)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = product / math.sqrt(margins) if margins else 0.0
    return _square_and_add(both + only_first, both + only_second, n, phi, confidence)


def _square_and_add(first: float, second: float, n: int, phi: float, confidence: float) -> Rate:
    p1, p2 = first / n, second / n
    (low1, high1), (low2, high2) = wilson(first, n, confidence), wilson(second, n, confidence)

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up * up - 2 * phi * up * down + down * down))

    low, high = p1 - p2 - reach(p1 - low1, high2 - p2), p1 - p2 + reach(high1 - p1, p2 - low2)
    return Rate(p1 - p2, max(-1.0, low), min(1.0, high))


def _difference(one: Floats, two: Floats, confidence: float) -> Rate:
    n = len(one)
    if np.isin(one, (0, 1)).all() and np.isin(two, (0, 1)).all():
        first, second = one > 0, two > 0
        cells = (first & second, first & ~second, ~first & second, ~first & ~second)
        both, only_first, only_second, neither = (int(cell.sum()) for cell in cells)
        return newcombe(both, only_first, only_second, neither, confidence)
    apart = one - two
    if (apart != 0).sum() < _ENOUGH:  # as if the two had nothing in common, which is the wider interval
        return _square_and_add(float(one.sum()), float(two.sum()), n, 0.0, confidence)
    return Rate(float(apart.mean()), *cluster_bootstrap(apart, confidence))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979): below alpha, all of them hold together at alpha."""
    return [float(p) for p in _holm(np.asarray(ps, dtype=np.float64), np.ones(len(ps), dtype=np.int64))]


def _holm(ps: Floats, times: Ints) -> Floats:
    """As holm(), of p values that occur so many times each."""
    order = np.argsort(ps)
    before = np.cumsum(times[order]) - times[order]
    found = np.empty(len(ps))
    found[order] = np.minimum(1.0, np.maximum.accumulate(ps[order] * (times.sum() - before)))
    return found


@dataclass(frozen=True)
class Rank:
    """Place by accuracy, equal accuracies sharing one, and the best and the worst place that the data allow."""

    place: int
    best: int
    worst: int

    @property
    def tied(self) -> bool:
        """Whether the images cannot tell this one from some other."""
        return self.worst > self.best

    def __str__(self) -> str:
        return f"{self.best}-{self.worst}" if self.tied else str(self.best)


def ranks(shares: Mapping[str, npt.ArrayLike], confidence: float = CONFIDENCE) -> dict[str, Rank]:
    """The rank of each by its shares (N,) on the same images; intervals that hold all together.

    best is one more than how many are better beyond doubt, worst as many less than all as are beyond doubt worse;
    beyond doubt is a paired test of every pair, adjusted by Holm (Mogstad, Romano, Shaikh and Wilhelm 2024).
    """
    if not shares:
        return {}
    values = np.array([*shares.values()], dtype=np.float64)  # (models, N)
    whole = bool(((values == 0) | (values == 1)).all())
    apart = (_bits_apart if whole else _shares_apart)(values, 1 - confidence)
    totals = values.mean(1)
    ahead = len(totals) - np.searchsorted(np.sort(totals), totals + 1e-12, "right")  # how many have more
    better = [int((row & (totals > own)).sum()) for row, own in zip(apart, totals, strict=True)]
    worse = [int((row & (totals < own)).sum()) for row, own in zip(apart, totals, strict=True)]
    return {
        name: Rank(1 + int(place), 1 + first, len(values) - last)
        for name, place, first, last in zip(shares, ahead, better, worse, strict=True)
    }


def _bits_apart(values: Floats, alpha: float) -> Bits:
    """(models, models) of bits (models, N): which pairs differ, all together at alpha, by McNemar's test and Holm.

    Pairs grow with the square of the models: so one product of matrices counts them all, and the test is asked once for
    each outcome that occurs.
    """
    n = values.shape[1]
    bits = values.astype(np.float32)  # counts below 2^24 are exact
    only = (bits.sum(1)[:, None] - bits @ bits.T).astype(np.int32)  # images on which the one is right alone
    fewer, disagree = np.minimum(only, only.T), only + only.T
    pairs = fewer.astype(np.int64) * (n + 1) + disagree
    outcomes, times = np.unique(pairs[np.triu(np.ones_like(pairs, dtype=np.bool_), 1)], return_counts=True)
    differ = outcomes[_holm(_two_sided(outcomes // (n + 1), outcomes % (n + 1)), times) <= alpha]
    most = np.full(n + 1, -1, dtype=np.int32)  # of so many that disagree, up to which `fewer` is beyond doubt
    np.maximum.at(most, differ % (n + 1), (differ // (n + 1)).astype(np.int32))
    found: Bits = fewer <= most[disagree]
    return found


def _shares_apart(values: Floats, alpha: float) -> Bits:
    """As _bits_apart, of shares (models, N), by sign flips."""
    upper = np.triu_indices(len(values), 1)
    ps = [sign_flip(values[one] - values[two]) for one, two in zip(*upper, strict=True)]
    found = np.zeros((len(values),) * 2, dtype=np.bool_)
    found[upper] = np.asarray(holm(ps)) <= alpha
    return found | found.T
