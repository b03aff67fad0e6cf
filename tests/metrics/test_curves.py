"""Curves over eps, distances, groups, seeds and folds: by hand, and against the judge's own verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.ddn import DDN
from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, DataError
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.metrics.curves import nearest, nested, quantiles, robust_at
from robustbench_local.metrics.groups import by_class, by_group, largest_gap, rates_of
from robustbench_local.metrics.rates import Rate, sidak, wilson
from robustbench_local.metrics.spread import folds, over_folds, spread
from robustbench_local.metrics.summary import summarise

N = 40


class Plane(Defended):
    """Class 1 where the mean lies above 1/2; a slip turns the answer around, with the probability `slip` per draw."""

    def __init__(self, slip: float = 0.0) -> None:
        super().__init__()
        self.slip, self.stochastic = slip, slip > 0
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        lead = self.scale * (x.flatten(1).mean(1) - 0.5)
        if draws is not None and self.slip:
            lead = torch.where(draws.uniform() < self.slip, -lead, lead)
        return torch.stack([-lead, lead], 1)


def images() -> tuple[Tensor, Tensor]:
    """Grey images of both classes at different depths; the first two are wrong as they are."""
    y = torch.arange(N) % 2
    depth = torch.linspace(0.02, 0.4, N)
    depth[:2] = -0.1
    grey = 0.5 + torch.where(y == 1, depth, -depth)
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), y


def shares(verdict: Verdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert verdict.success is not None
    clean = verdict.clean.double() if verdict.clean_bits is None else verdict.clean_bits.double().mean(1)
    return verdict.distance.double().numpy(), verdict.success.double().numpy(), clean.numpy()


@pytest.mark.parametrize("slip", [0.0, 0.1])
def test_the_curve_says_at_every_eps_what_a_verdict_there_says(slip: float) -> None:
    x, y = images()
    model = Plane(slip)
    at_one = shares(evaluate(model, x, y, DDN(steps=15), "l2:0.5", draws=10, eot=5))
    for eps in (0.2, 0.5, 1.0, 2.0):
        verdict = evaluate(model, x, y, DDN(steps=15), f"l2:{eps}", draws=10, eot=5)
        assert robust_at(eps, *at_one).mean() == pytest.approx(verdict.robust_accuracy, abs=1e-6)
    found = np.array([robust_at(eps, *at_one).mean() for eps in np.linspace(0, 2, 30)])
    assert found[0] > found[-1] + 0.4
    if not slip:
        assert (np.diff(found) <= 0).all()


def test_nearest_is_the_distance_in_closed_form() -> None:
    x, y = images()
    found = nearest(*shares(evaluate(Plane(), x, y, DDN(), "l2:0.5")))
    depth = (x.flatten(1).mean(1) - 0.5).abs().double().numpy() * 4  # 16 pixels, each by the depth
    assert (found[:2] == 0).all()
    assert found[2:] == pytest.approx(depth[2:], rel=0.03)


def test_a_random_model_gains_nothing_from_an_attack_whose_images_lie_outside() -> None:
    x, y = images()
    verdict = evaluate(Plane(0.1), x, y, DDN(steps=20), "l2:0.0001", draws=20)
    outside = verdict.distance > 0.01
    assert outside.sum() > 30 and verdict.bits is not None and verdict.clean_bits is not None
    assert torch.equal(verdict.bits[outside], verdict.clean_bits[outside])
    assert verdict.robust_accuracy < 0.93
    assert torch.equal(verdict.scores[outside], verdict.clean_scores[outside])
    assert verdict.success is not None and verdict.success[outside].max() > 0.8  # out there it succeeds


def test_the_row_has_quantiles_of_distances_of_minimum_norm_attacks_only() -> None:
    x, y = images()
    row = summarise(evaluate(Plane(), x, y, DDN(), "l2:0.5"), ["dark", "bright"])
    assert row["distance"]["n"] == N - 2
    assert row["distance"]["q50"] == pytest.approx(4 * 0.2153, rel=0.05)  # the depths' median, in L2
    assert row["queries_to_success"] is None
    row = summarise(evaluate(Plane(), x, y, "fgsm", "linf:0.2"), ["dark", "bright"])
    assert row["distance"] is None
    success = row["attack_success_rate"]
    assert success["of"] == N - 2
    assert success["rate"] == pytest.approx(row["queries_to_success"]["n"] / (N - 2), abs=1e-5)
    assert row["robust_accuracy"] == pytest.approx(row["clean_accuracy"] * (1 - success["rate"]), abs=1e-5)


def test_what_no_attack_reached_is_infinitely_far() -> None:
    found = nearest(np.array([0.1, 0.0, 0.2]), np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    assert found.tolist() == [0.1, math.inf, 0.0]


def test_quantiles_by_hand() -> None:
    assert quantiles([3, 1, 2, math.inf], (0.25, 0.5, 0.75, 0.9)) == {"n": 4, "q25": 1, "q50": 2, "q75": 3, "q90": None}
    assert quantiles([5], (0.1, 0.9)) == {"n": 1, "q10": 5, "q90": 5}
    assert quantiles([], (0.5,)) == {"n": 0, "q50": None}


def test_quantiles_agree_with_numpy() -> None:
    values = np.random.default_rng(0).exponential(size=137)
    expected = np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9), method="inverted_cdf")
    assert list(quantiles(values).values())[1:] == pytest.approx(expected.tolist())


def test_a_ball_holds_what_fell_in_a_smaller_one() -> None:
    found = nested({0.2: np.array([1.0, 1.0, 0.0]), 0.1: np.array([1.0, 0.0, 1.0]), 0.3: np.array([0.0, 1.0, 1.0])})
    assert {eps: each.tolist() for eps, each in found.items()} == {0.1: [1, 0, 1], 0.2: [1, 0, 0], 0.3: [0, 0, 0]}


# fairness

LABELS, IDS = np.array([0, 0, 1, 1, 2, 2]), np.array([10, 11, 12, 13, 14, 15])
CLASSES = ["bird", "cat", "ship", "truck"]
ROBUST = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])


def test_the_largest_gap_is_named() -> None:
    rates = rates_of(ROBUST, by_class(LABELS, CLASSES))
    assert {name: rate.value for name, rate in rates.items()} == {"bird": 0.5, "cat": 0.0, "ship": 1.0}
    assert (rates["bird"].low, rates["bird"].high) == pytest.approx(wilson(1, 2, sidak(3)))
    gap = largest_gap(rates)
    assert gap is not None
    assert (gap.best, gap.worst, gap.gap.value) == ("ship", "cat", 1.0)
    assert largest_gap({"one": Rate(0.5, 0.4, 0.6)}) is None


def test_groups_are_of_classes_or_of_images() -> None:
    found = by_group(LABELS, IDS, CLASSES, {"animals": ["bird", "cat"], "odd": [15, 99], "none": ["truck"]})
    assert {name: own.tolist() for name, own in found.items()} == {
        "animals": [True, True, True, True, False, False],
        "odd": [False] * 5 + [True],
    }


@pytest.mark.parametrize(
    ("groups", "words"), [({"a": ["dog"]}, "known are bird, cat"), ({"a": ["cat"], "b": [12]}, r"\[12\] are in two")]
)
def test_groups_that_mean_nothing_are_refused(groups: dict[str, list[str | int]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        by_group(LABELS, IDS, CLASSES, groups)


def test_the_gaps_interval_covers_though_the_two_were_picked() -> None:
    generator, runs, n = np.random.default_rng(1), 400, 100
    members = {str(k): np.arange(5 * n) // n == k for k in range(5)}
    hits = 0
    for _ in range(runs):  # all classes are alike: the true gap is 0, and the one that is seen never
        gap = largest_gap(rates_of((generator.random(5 * n) < 0.6).astype(float), members))
        assert gap is not None and gap.gap.value >= 0
        hits += gap.gap.low == 0
    assert hits >= 0.95 * runs


# seeds and folds


def test_spread_by_hand() -> None:
    found = spread([0.4, 0.5, 0.6])
    assert (found.n, found.mean, found.deviation, found.low, found.high) == pytest.approx((3, 0.5, 0.1, 0.4, 0.6))
    assert spread([0.4]).deviation is None


def test_folds_part_the_images_evenly_in_size_and_class_in_whatever_order() -> None:
    generator = np.random.default_rng(2)
    labels, ids = generator.integers(3, size=103), generator.permutation(1000)[:103]
    fold = folds(labels, ids, 5, seed=1)
    sizes = np.bincount(fold, minlength=5)
    assert sizes.sum() == 103 and sizes.max() - sizes.min() <= 1
    for k in range(3):
        of_class = np.bincount(fold[labels == k], minlength=5)
        assert of_class.max() - of_class.min() <= 1
    order = generator.permutation(103)
    assert (folds(labels[order], ids[order], 5, seed=1) == fold[order]).all()
    assert (folds(labels, ids, 5, seed=2) != fold).any()


def test_over_folds_is_the_spread_of_their_means() -> None:
    fold = np.array([0, 0, 1, 1])
    found = over_folds(np.array([1.0, 0.0, 1.0, 1.0]), fold)
    assert (found.n, found.mean, found.deviation) == pytest.approx((2, 0.75, math.sqrt(0.125)))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_folds_need_images(count: int) -> None:
    with pytest.raises(ConfigError, match="folds of 4 images"):
        folds(np.zeros(4, dtype=np.int64), np.arange(4), count)
