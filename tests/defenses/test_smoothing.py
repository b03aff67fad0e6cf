from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.defenses._passes import log_probabilities, mean_probability
from robustbench_local.defenses.none import Undefended
from robustbench_local.defenses.randomized_smoothing import RandomizedSmoothing, Smoothed, certified_accuracy, certify
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.build import build_model
from robustbench_local.ops.noise import gaussian
from tests.helpers.side import SIGMA, Side, at
from tests.helpers.tiny_training import accuracy, digits, fit

PLAN = Schedule(epochs=5, batch=50, optimizer="adam", lr=3e-3, weight_decay=0.0, validation=100)


class Votes(nn.Module):
    """Answers from a list, one pass after the other: (P, N) classes."""

    def __init__(self, classes: list[list[int]], count: int = 3) -> None:
        super().__init__()
        self.answers, self.count, self.turn = torch.as_tensor(classes), count, 0

    def forward(self, x: Tensor) -> Tensor:
        answer = nn.functional.one_hot(self.answers[self.turn], self.count).float()
        self.turn += 1
        return answer + 0 * x.sum()


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("samples", [21])
def test_it_answers_or_abstains_as_the_binomial_test_says(samples: int, alpha: float) -> None:
    seen = set()
    for first in range(samples + 1):
        for second in {0, (samples - first) // 2, samples - first}:
            third = samples - first - second
            model = Smoothed(Votes([[0]] * first + [[1]] * second + [[2]] * third), 0.1, samples, alpha)
            best, other = sorted((first, second, third))[:0:-1]
            if best == other or stats.binomtest(best, best + other, 0.5).pvalue > alpha:
                expected = 3  # reject
            else:
                expected = (first, second, third).index(best)
            assert model(torch.zeros(1, 1, 2, 2)).argmax().item() == expected, (first, second, third)
            seen.add(expected)
    assert {0, 1, 3} <= seen


def test_the_order_of_logits_is_that_of_votes_and_none_is_infinite() -> None:
    logits = Smoothed(Votes([[0]] * 15 + [[2]] * 5), 0.1, 20, 0.001)(torch.zeros(1, 1, 2, 2))[0]
    assert logits[0] > logits[2] > logits[1] and logits.isfinite().all()


def test_gradients_are_those_of_the_log_mean_probability() -> None:
    net, x = build_model("fast_cnn", seed=1).double(), digits(3)[:].double().requires_grad_()
    draws = Draws(0, torch.arange(3), dtype=torch.float64)
    model = Smoothed(net, SIGMA, 11, 0.001)
    (found,) = torch.autograd.grad(model(x, draws[:])[:, 4].sum(), x)
    copies = [gaussian(x, SIGMA, draws.stream(k).stream("noise")) for k in range(11)]
    mean = torch.stack([net(copy).softmax(1) for copy in copies]).mean(0)
    (expected,) = torch.autograd.grad(mean[:, 4].log().sum(), x)
    torch.testing.assert_close(found, expected)
    (reject,) = torch.autograd.grad(model(x, draws[:])[:, 10].sum(), x)
    assert (reject == 0).all()


def test_the_mean_of_probabilities_is_exact_where_they_underflow() -> None:
    logs = torch.tensor([[[0.0, -500.0]], [[0.0, -400.0]]])
    torch.testing.assert_close(mean_probability(logs)[0, 1], torch.tensor(-400.0 - math.log(2)))
    x = torch.rand(2, 3)
    torch.testing.assert_close(mean_probability(log_probabilities(x, [nn.Identity()])), x.log_softmax(1))


def test_the_answer_is_the_same_in_any_batch_and_other_in_any_draw() -> None:
    net, images, draws = build_model("fast_cnn", seed=1).double(), digits(6)[:].double(), Draws(0, torch.arange(6))
    model, rows = Smoothed(net, SIGMA, 11, 0.001), torch.tensor([4, 1])
    whole = model(images, draws[:])
    assert torch.equal(model(images[rows], draws[rows]), whole[rows])
    assert not torch.equal(model(images, draws.stream("other")), whole)
    assert whole.shape == (6, 11)


def test_radii_are_below_the_true_ones_and_near_them() -> None:
    distances, sigma = torch.tensor([0.02, 0.08, 0.2, 0.32, 0.48], dtype=torch.float64), 0.2
    x, y = at(distances), torch.ones(5, dtype=torch.int64)
    draws = Draws(3, torch.arange(5), dtype=torch.float64)
    radii = certify(Side(), x, y, sigma, n0=20, n=5000, draws=draws[:])
    assert (radii < distances).all() and (radii > distances - 0.028)[:4].all()
    fewer = certify(Side(), x, y, sigma, n0=20, n=200, draws=draws[:])
    assert (fewer < distances)[1:].all() and (fewer < radii)[1:].all()
    broken = certify(Side(), x, y, 2 * sigma, n0=20, n=5000, draws=draws[:]) / 2  # the test can fail
    assert not ((broken > distances - 0.028)[:4].all() and (broken < distances).all())


def test_the_bound_is_clopper_and_pearsons() -> None:
    distances = torch.tensor([0.3], dtype=torch.float64)
    draws = Draws(3, torch.arange(1), dtype=torch.float64)
    found = certify(Side(), at(distances), torch.ones(1, dtype=torch.int64), SIGMA, n0=20, n=500, draws=draws[:])
    lower = stats.norm.cdf(found.item() / SIGMA)
    bounds = [stats.binomtest(k, 500, alternative="greater").proportion_ci(0.999).low for k in range(300, 501)]
    assert min(abs(bound - lower) for bound in bounds) < 1e-9  # of some whole number of votes


def test_what_is_wrong_or_undecided_has_no_radius() -> None:
    x = at(torch.tensor([0.5, -0.5, 0.0]))
    radii = certify(Side(), x, torch.ones(3, dtype=torch.int64), SIGMA, n0=20, n=300)
    assert radii[0] > 0 and radii[1:].isnan().all()
    assert certified_accuracy(radii, [0, 0.1, 9]) == pytest.approx([1 / 3, 1 / 3, 0])


def test_votes_do_not_depend_on_the_batch() -> None:
    x, y, draws = at(torch.tensor([0.3, 0.4, 0.5])), torch.ones(3, dtype=torch.int64), Draws(0, torch.arange(3))
    whole = certify(Side(), x, y, SIGMA, n0=20, n=100, draws=draws[:], batch=1000)
    assert torch.equal(certify(Side(), x, y, SIGMA, n0=20, n=100, draws=draws[:], batch=7), whole)
    assert torch.equal(certify(Side(), x[1:], y[1:], SIGMA, n0=20, n=100, draws=draws[1:], batch=50), whole[1:])
    assert torch.equal(certify(Smoothed(Side(), 9.0, 11, 0.001), x, y, SIGMA, 20, 100, draws=draws[:]), whole)


def test_training_on_noise_certifies_what_plain_training_does_not() -> None:
    images, test = digits(1000), digits(60, "test")
    share = {}
    recipes: dict[str, Recipe] = {"plain": Undefended(), "noise": RandomizedSmoothing(sigma=0.8)}
    for name, recipe in recipes.items():
        net, _ = fit(recipe, PLAN, images=images, net=build_model("fast_cnn", seed=0))
        assert accuracy(net, test[:], test.labels) > 0.75
        radii = certify(net, test[:], test.labels, 0.8, n0=20, n=200, draws=Draws(0, test.ids))
        share[name] = certified_accuracy(radii, [0.3])[0]
    assert share["noise"] > share["plain"] + 0.1


def test_the_judge_counts_abstention_as_an_error_on_clean_images() -> None:
    x = at(torch.tensor([0.4] * 5 + [0.01] * 5))
    model = Smoothed(Side(), 0.2, 16, 0.001)
    verdict = evaluate(model, x, torch.ones(10, dtype=torch.int64), "pgd", "l2:0.05", steps=2, eot=2)
    assert verdict.clean[:5].all() and not verdict.clean[5:].any()


def test_what_only_deployment_reads_trains_nothing_anew() -> None:
    defense = RandomizedSmoothing(sigma=0.3, samples=50, alpha=0.01)
    assert defense.as_trained() == RandomizedSmoothing(sigma=0.3)
    assert "needed" not in Smoothed(nn.Linear(1, 1), 0.3, 50, 0.01).state_dict()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"samples": 10}, "even a vote of all"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float] | dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandomizedSmoothing(**settings)
    RandomizedSmoothing(samples=11)
