"""JSMA: the pair that the definition asks for, feature by feature, and success beside torchattacks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.jsma import JSMA, best_pair
from robustbench_local.core.losses import Loss
from robustbench_local.core.oracle import Oracle
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model


def every_pair(rise: Tensor, fall: Tensor, free: Tensor) -> tuple[float, tuple[int, int]]:
    """The definition, pair by pair: (largest product, its pair)."""
    best, pair = 0.0, (-1, -1)
    places = free.nonzero()[:, 0].tolist()
    for p in places:
        for q in places:
            alpha, beta = float(rise[p] + rise[q]), float(fall[p] + fall[q])
            if p < q and alpha > 0 and beta > 0 and alpha * beta > best:
                best, pair = alpha * beta, (p, q)
    return best, pair


@pytest.mark.parametrize("kind", ["independent", "opposed", "aligned", "coarse", "rare"])
def test_the_best_pair_is_the_best_of_all(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rise = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    fall = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    free = torch.rand(40, 24, generator=generator) < 0.7
    if kind == "opposed":
        fall = 0.3 * fall - rise
    elif kind == "aligned":
        fall = rise
    elif kind == "coarse":  # many ties
        rise, fall = rise.round(), fall.round()
    elif kind == "rare":
        rise, free = rise - 2, free & (torch.rand(40, 24, generator=generator) < 0.1)
    pair, found = best_pair(rise, fall, free)
    for row in range(40):
        product, _ = every_pair(rise[row], fall[row], free[row])
        assert bool(found[row]) == (product > 0)
        if found[row]:
            p, q = pair[row].tolist()
            assert p != q and free[row, p] and free[row, q]
            value = float((rise[row, p] + rise[row, q]) * (fall[row, p] + fall[row, q]))
            assert math.isclose(value, product, rel_tol=1e-9)


def test_a_gradient_that_is_zero_everywhere_has_no_pair() -> None:
    nothing = torch.zeros(2, 5)
    assert not best_pair(nothing, nothing, torch.ones(2, 5, dtype=torch.bool))[1].any()


class Ink(nn.Module):
    """Three classes: ink on the left, ink on the right, neither; 1 x 4 x 4 images."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[..., :2].flatten(1).sum(1), x[..., 2:].flatten(1).sum(1)
        return torch.stack([left - 0.5 * right, right - 0.5 * left, 1.5 - 0.5 * (left + right)], 1)


@pytest.mark.parametrize("saliency", ["pairs", "slope"])
@pytest.mark.parametrize(("theta", "ink"), [(1.0, 1.0), (0.3, 0.6)])
def test_ink_goes_where_the_target_wants_it(theta: float, ink: float, saliency: str) -> None:
    """Two pixels, until there is more than 1 in them: in one step, or in two."""
    x, y = torch.zeros(3, 1, 4, 4), torch.tensor([2, 2, 2])
    goal = torch.tensor([0, 1, 0])
    verdict = evaluate(Ink(), x, y, JSMA(theta=theta, gamma=1, saliency=saliency), "l0:16", targets=goal)
    assert not verdict.robust.any() and verdict.distance.eq(2).all()
    changed = (verdict.x_adv > 0).sum((1, 2))  # (N, columns)
    assert changed[:, :2].sum(1).tolist() == [2, 0, 2] and changed[:, 2:].sum(1).tolist() == [0, 2, 0]
    assert torch.allclose(verdict.x_adv.amax((1, 2, 3)), torch.tensor(ink))


@pytest.mark.parametrize("factor", [0, -1])
def test_broken_twins_by_slope_are_caught(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slope, and the wrong sign; those of pairs are caught beside the other minimum-norm attacks."""
    whole = Oracle.grad

    def twisted(oracle: Oracle, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        value, grad, logits = whole(oracle, x, y, loss)
        return value, factor * grad, logits

    monkeypatch.setattr(Oracle, "grad", twisted)
    x, y, goal = torch.zeros(2, 1, 4, 4), torch.tensor([2, 2]), torch.tensor([0, 1])
    assert evaluate(Ink(), x, y, JSMA(gamma=0.2, saliency="slope"), "l0:16", targets=goal).robust.any()


def test_ink_is_taken_away_where_theta_is_negative() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2] = 1
    model, y = Ink(), torch.tensor([0])
    assert evaluate(model, x, y, JSMA(gamma=0.3), "l0:16", targets=torch.tensor([2])).robust.all()
    verdict = evaluate(model, x, y, JSMA(theta=-1, gamma=1), "l0:16", targets=torch.tensor([2]))
    assert not verdict.robust.any() and (verdict.x_adv <= x).all()


def test_by_slope_it_goes_on_where_no_pair_is_left() -> None:
    """Both features raise the target's logit, and that of a third class twice as much: no pair of the paper's."""

    class Third(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ink = x.flatten(1).sum(1)
            return torch.stack([torch.ones_like(ink), ink, torch.where(ink < 2, 2 * ink - 9, ink - 1)], 1)

    x, y, goal = torch.zeros(1, 1, 1, 2), torch.tensor([0]), torch.tensor([1])
    attacks = JSMA(gamma=1, saliency="pairs"), JSMA(gamma=1, saliency="slope")
    pairs, slope = (evaluate(Third(), x, y, attack, "l0:2", targets=goal) for attack in attacks)
    assert bool(pairs.robust) and not bool(slope.robust)
    assert slope.forwards >= slope.backwards > 0


def test_no_more_than_a_share_gamma_is_changed() -> None:
    x, y = load_data("mnist", n=6, source="bundled")
    model = load_model("zoo:mnist/adversarial_training")
    for gamma in (0.01, 0.05):
        verdict = evaluate(model, x, y, JSMA(gamma=gamma), "l0:784")
        assert (verdict.x_adv != x).flatten(1).sum(1).max() <= gamma * 784
        assert (verdict.x_adv >= x).all()


@pytest.mark.slow
def test_beside_torchattacks(record_property: Callable[[str, object], None]) -> None:
    """Towards the next class, as torchattacks goes; ours needs D features a step for a pair, theirs D²."""
    torchattacks = pytest.importorskip("torchattacks")
    model = load_model("zoo:mnist/none")
    x, y = load_data("mnist", n=20, source="bundled")
    goal = (y + 1) % 10
    theirs = torchattacks.JSMA(model, gamma=0.1)(x.clone(), y)
    ours = evaluate(model, x, y, JSMA(gamma=0.1), "l0:784", targets=goal)
    with torch.no_grad():
        reached, before = model(theirs).argmax(1) == goal, model(x).argmax(1) == goal
    missed = ~reached & ~before
    record_property("not reached, theirs", (ours.robust.double().mean(), missed.double().mean()))
    assert ours.robust.double().mean() <= missed.double().mean() + 0.005
    pixels = (theirs != x).flatten(1).sum(1).to(x)
    both = reached & ours.clean & ~ours.robust
    assert ours.distance[both].median() <= pixels[both].median()
