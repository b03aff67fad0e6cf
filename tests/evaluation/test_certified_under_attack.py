"""Certified images, attacked within their radius: no answer may change that the certificate promises to hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.core.draws import Draws
from robustbench_local.defenses.randomized_smoothing import Smoothed, _votes, certify
from tests.helpers.side import SIGMA, Side, at

ALPHA = 0.001  # the chance that a certificate is wrong, and that a vote is
MANY = 100_000
BATCH = 1_000_000  # pixels at a time
SURE = 0.01  # below this chance of so many contradictions, the certificates are not what they say


def contradicted(model: Smoothed, x: Tensor, y: Tensor, x_adv: Tensor, boast: float = 1.0) -> Tensor:
    """(N,) bool: at x_adv another class than y wins, significantly, and x is certified so far all the same.

    First by 1,000 draws; what these find is certified and asked anew by MANY. A vote that is not significant is an
    abstention, which contradicts nothing. boast: what a false certificate multiplies its radius by.
    """
    found = torch.ones(len(x), dtype=torch.bool)
    away = (x_adv - x).flatten(1).norm(dim=1)
    batch = BATCH // x[0].numel()
    for count in (1000, MANY):
        for row in found.nonzero()[:, 0].tolist():
            one, draws = slice(row, row + 1), Draws(1, torch.tensor([row]), dtype=x.dtype).stream(count)
            votes = _votes(model.net, x_adv[one], model.sigma, count, draws.stream("votes"), batch)[0]
            best, mine = int(votes.max()), int(votes[y[row]])
            holds = best == mine or stats.binomtest(best, best + mine).pvalue >= ALPHA
            if not holds and count == MANY:
                radius = certify(model, x[one], y[one], model.sigma, n=MANY, draws=draws.stream("again"), batch=batch)
                holds = not boast * radius >= away[row]
            found[row] = not holds
    return found


def too_many(found: Tensor) -> bool:
    """More than the alphas allow: a certificate may be wrong, or else the vote against it."""
    return bool(stats.binomtest(int(found.sum()), len(found), 2 * ALPHA, "greater").pvalue < SURE)


def attacked(model: nn.Module, x: Tensor, y: Tensor, eps: float, attack: str, **settings: Any) -> Tensor:
    verdict = rbl.evaluate(model, x, y, attack, f"l2:{eps}", draws=2, **settings)
    assert (verdict.distance <= eps + 1e-5).all() and (verdict.distance > 0.5 * eps).any()
    return verdict.x_adv


def test_the_planted_boundary_is_never_crossed_within_the_radius_and_always_beyond() -> None:
    x, y = at(torch.full((4,), 0.4)), torch.ones(4, dtype=torch.int64)
    model = Smoothed(Side(), SIGMA, 16, ALPHA)
    radii = certify(model, x, y, SIGMA, n=2000, draws=Draws(0, torch.arange(4)))
    assert (radii > 0.3).all() and (radii < 0.4).all()
    within = attacked(model, x, y, radii.min().item(), "pgd", steps=5, eot=1)
    assert not contradicted(model, x, y, within).any()
    beyond = attacked(model, x, y, 0.6, "pgd", steps=5, eot=1)  # the test can fail: so far nothing was promised
    votes = [_votes(Side(), beyond[k : k + 1], SIGMA, 2000, Draws(0, torch.tensor([k])), 1000)[0] for k in range(4)]
    assert all(int(each.argmax()) == 0 for each in votes)
    assert not contradicted(model, x, y, beyond).any()  # since x is not certified so far either


def test_certificates_that_promise_too_much_are_found_out() -> None:
    x, y = at(torch.full((4,), 0.4)), torch.ones(4, dtype=torch.int64)
    model = Smoothed(Side(), SIGMA, 16, ALPHA)
    beyond = attacked(model, x, y, 0.6, "pgd", steps=5, eot=1)
    assert too_many(contradicted(model, x, y, beyond, boast=1.7))  # the broken twin: 0.68 promised, 0.4 true
    assert not too_many(contradicted(model, x, y, beyond))


def test_how_many_the_alphas_allow() -> None:
    for count, wrong, verdict in ((30, 0, False), (30, 1, False), (30, 2, True), (1000, 4, False), (1000, 9, True)):
        assert too_many(torch.arange(count) < wrong) is verdict


def smoothed() -> Smoothed:
    model = rbl.load_model("zoo:mnist/smoothing")
    assert isinstance(model, Smoothed)
    return model


def certified(model: Smoothed, eps: float, n: int, count: int) -> tuple[Tensor, Tensor]:
    """Of the first n test images those with a radius of eps or more, by so many draws."""
    x, y = rbl.load_data("mnist", n=n, source="bundled")
    radii = certify(model, x, y, model.sigma, n=count, draws=Draws(0, torch.arange(n)))
    keep = radii >= eps
    assert 0.5 < keep.float().mean() <= 1
    return x[keep], y[keep]


def test_certified_digits_hold_under_a_short_attack() -> None:
    model = smoothed()
    x, y = certified(model, 0.5, 8, 200)
    model = Smoothed(model.net, model.sigma, 16, ALPHA).eval()
    assert not too_many(contradicted(model, x, y, attacked(model, x, y, 0.5, "pgd", steps=4, eot=1)))


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
@pytest.mark.parametrize("eps", [0.5, 1.0])
def test_certified_digits_hold_under_attack(eps: float, attack: str) -> None:
    model = smoothed()
    x, y = certified(model, eps, 40, 2000)
    x_adv = attacked(model, x, y, eps, attack, steps=20, eot=1, loss="margin" if attack == "pgd" else "ce")
    found = contradicted(model, x, y, x_adv)
    print(f"{attack} l2:{eps}: {len(x)} certified images attacked, {int(found.sum())} contradicted")
    assert not too_many(found)
