"""When an attack has succeeded, by hand: margins, draws, rejections, the ball, near-ties; each with a broken twin."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.core import decision
from robustbench_local.core.decision import (
    changed,
    correct,
    detects,
    inside_or_clean,
    majority,
    near_tie,
    nearness,
    success_margin,
    success_margins,
)
from robustbench_local.core.defense import Defended, Rejection

INF, NAN = math.inf, math.nan


def logits(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def margins_are_the_attackers(margin: Callable[..., Tensor]) -> bool:
    """(3, 1, 0) is right by 2 of class 0, 2 from class 1, and 3 from class 2; a tie and a NaN are successes."""
    z = logits([3, 1, 0], [1, 1, 0], [1, NAN, 0], [1, INF, 0])
    untargeted = margin(z, torch.zeros(4, dtype=torch.int64)).tolist() == [-2, 0, INF, INF]
    targets = torch.tensor([1, 1, 1, 1])
    return untargeted and margin(z, targets, targeted=True).tolist() == [-2, 0, INF, INF]


def test_the_margin_of_an_answer() -> None:
    assert margins_are_the_attackers(success_margin)
    assert correct(logits([3, 1], [1, 1], [NAN, 0]), torch.tensor([0, 0, 0])).tolist() == [True, False, False]


def _forgives_nan(z: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    return success_margin(z.nan_to_num(-1), y, targeted=targeted)


def _same_sign(z: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    return success_margin(z, y)


@pytest.mark.parametrize("twin", [_forgives_nan, _same_sign])
def test_twins_of_the_margin_are_caught(twin: Callable[..., Tensor]) -> None:
    assert not margins_are_the_attackers(twin)


def test_margins_over_draws_keep_the_order_of_images_and_draws() -> None:
    """Two images of three draws each: the image's own label counts for each of its draws."""
    answers = torch.stack([logits([1, 0], [0, 2], [3, 0]), logits([0, 1], [5, 0], [0, 0])])
    y = torch.tensor([0, 1])
    assert success_margins(answers, y).tolist() == [[-1, 2, -3], [-1, 5, 0]]
    assert success_margins(answers.flip(1), y).tolist() != success_margins(answers, y).tolist()  # the twin


def test_half_of_the_draws_is_no_majority() -> None:
    bits = torch.tensor([[True, True, False], [True, False, False], [True, False, True]])
    assert majority(bits).tolist() == [True, False, True]
    assert majority(bits[:, :2]).tolist() == [True, False, False]
    assert (bits[:, :2].double().mean(1) >= 0.5).tolist() != majority(bits[:, :2]).tolist()  # the twin


REJECTED = logits([1, 2, 5])  # of class 0: class 1 is ahead, and the rejection is ahead of both


def test_a_rejection_is_the_attackers_failure_only_for_what_is_changed() -> None:
    answers, y = REJECTED[None], torch.tensor([0])
    assert success_margins(answers, y).tolist() == [[4]]  # an abstention, or a detector on an image as it was: an error
    assert success_margins(answers, y, rejectable=torch.tensor([False])).tolist() == [[4]]
    assert success_margins(answers, y, rejectable=torch.tensor([True])).tolist() == [[-3]]  # 2 against 5
    assert success_margins(answers.clamp(max=2), y, rejectable=torch.tensor([True])).tolist() == [[0]]


def test_who_ignores_the_rejection_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "joined", lambda z, y: z[:, :-1])
    with pytest.raises(AssertionError):
        test_a_rejection_is_the_attackers_failure_only_for_what_is_changed()


def test_who_is_rejected_rightly() -> None:
    class Detector(Defended):
        rejects = Rejection.DETECTION

    class Abstainer(Defended):
        rejects = Rejection.ABSTENTION

    assert detects(Detector()) and not detects(Abstainer()) and not detects(nn.Flatten())
    assert not detects(Detector(), targeted=True) and not detects(Detector(), natural=True)
    x = torch.zeros(2, 1, 2, 2)
    x_adv = x.clone()
    x_adv[1, 0, 1, 1] = 1e-7
    assert changed(x_adv, x).tolist() == [False, True]


def test_outside_the_ball_the_clean_answer_counts() -> None:
    attacked, clean = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    counted = inside_or_clean(attacked, torch.tensor([True, False]), clean)
    assert counted.flatten(1).sum(1).tolist() == [12, 0]
    twin = inside_or_clean(clean, torch.tensor([True, False]), attacked)
    assert not torch.equal(counted, twin)


def test_a_near_tie_is_one_in_the_logits_own_size() -> None:
    """1e-4 of usual logits; of others the same in their unit, a power of 1024; by labels 1e-5 of their size."""
    sizes = torch.tensor([0.0, 10.0, 10.0 * 1024, 300.0], dtype=torch.float64)
    torch.testing.assert_close(near_tie(sizes), torch.tensor([1e-4, 1e-4, 0.1024, 3e-4], dtype=torch.float64))
    by_labels = torch.tensor([0, 1e-4, 0.1024, 3e-3], dtype=torch.float64)
    torch.testing.assert_close(near_tie(sizes, labels_only=True), by_labels)
    assert not torch.allclose(near_tie(sizes), torch.full_like(sizes, 1e-4), rtol=1e-3, atol=0)  # a twin: one for all


def ordered_by_nearness(rank: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """From worst to best: no success, a far near-tie, a near one, a far success, a near one."""
    margin = torch.tensor([-INF, 0, 0, 1.0, 2.0])
    distance = torch.tensor([0.1, 3.0, 0.1, 4.0, 0.5])
    found = rank(margin, distance, torch.full((5,), 1e-4))
    return bool((found.diff() > 0).all()) and float(found[0]) == -INF


def test_the_nearer_success_is_the_better() -> None:
    assert ordered_by_nearness(nearness)
    assert not ordered_by_nearness(lambda margin, distance, tie: -distance)  # takes a near-tie for a success
    assert not ordered_by_nearness(lambda margin, distance, tie: margin)  # takes the larger margin
