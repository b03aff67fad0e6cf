"""Square's lookahead: several proposals at once, and the same search as one by one."""

from __future__ import annotations

import pytest
import torch

from robustbench_local.attacks.square import Square
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.judge import Judge
from tests.helpers.small_networks import images, network


def verdict(threat: str, lookahead: int, budget: int | None = None) -> Verdict:
    net = network()
    judge = Judge(seed=5, precision="float64", budget=budget)
    attack = Square(steps=61, p=0.8, stretch=False, lookahead=lookahead)
    return judge(net, images(net, torch.float64), attack, ThreatModel.parse(threat))


@pytest.mark.parametrize("threat", ["linf:0.01", "l2:0.15", "l1:0.6"])
def test_the_search_is_the_same_to_the_last_proposal(threat: str) -> None:
    alone = verdict(threat, 1)
    robust = alone.robust
    assert robust.sum() > 5 and (alone.x_adv != alone.x_adv[:1]).any()
    for lookahead in (2, 4, 7, 100):
        together = verdict(threat, lookahead)
        assert not (together.robust & ~robust).any()
        both = together.robust & together.clean
        assert both.sum() >= 5
        assert torch.allclose(together.x_adv[both], alone.x_adv[both], rtol=0, atol=1e-9), lookahead
        assert (together.forwards[both] >= alone.forwards[both]).all()
        assert lookahead == 100 or together.forwards[both].max() < 2.5 * alone.forwards[both].max()


def test_a_budget_is_spent_one_by_one() -> None:
    alone, together = (verdict("linf:0.01", lookahead, budget=20) for lookahead in (1, 4))
    robust = alone.robust
    assert torch.equal(robust, together.robust) and robust.sum() > 5
    assert torch.equal(alone.forwards[robust], together.forwards[robust])
    assert torch.equal(alone.x_adv[robust], together.x_adv[robust])


def test_a_fan_holds_the_streams_it_names() -> None:
    draws = Draws(2, torch.tensor([4, 9, 1])).stream("round")
    fan = draws.expand([3, 8])
    assert len(fan) == 6 and fan.ids.tolist() == [4, 4, 9, 9, 1, 1]
    rows = torch.tensor([5, 0, 2])
    part = fan[rows]
    for _ in range(2):
        whole = torch.stack([draws.stream(3).uniform(4), draws.stream(8).uniform(4)], 1).flatten(0, 1)
        assert torch.equal(draws.expand([3, 8]).uniform(4), whole)
    assert torch.equal(part.uniform(4), whole[rows])
    assert torch.equal(part.integers(7), draws.expand([3, 8])[rows].integers(7, 5)[:, 4])  # it counts on
