"""Rounds that run at once: each goes its own way as if it were alone, on one meter and one memory per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.apgd import APGD
from robustbench_local.attacks.fab import FAB
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.judge import Judge
from tests.helpers.small_networks import COUNT, chosen, images, network


@dataclass(frozen=True)
class SingleAPGD(APGD):
    parallel_restarts: ClassVar[bool] = False


@dataclass(frozen=True)
class SingleFAB(FAB):
    parallel_restarts: ClassVar[bool] = False


LINF = ThreatModel.parse("linf:0.02")
PAIRS = [
    (APGD(steps=6, loss="dlr", targets=3), SingleAPGD(steps=6, loss="dlr", targets=3)),
    (APGD(steps=6, loss="margin", targets=3, restarts=2), SingleAPGD(steps=6, loss="margin", targets=3, restarts=2)),
    (APGD(steps=6, restarts=3), SingleAPGD(steps=6, restarts=3)),
    (FAB(steps=6, targets=3, restarts=2), SingleFAB(steps=6, targets=3, restarts=2)),
]


@pytest.mark.parametrize(("attack", "single"), PAIRS)
def test_rounds_at_once_are_those_in_turn(attack: Attack, single: Attack) -> None:
    net = network()
    data = images(net, torch.float64)
    at_once, in_turn = (Judge(seed=3, precision="float64")(net, data, each, LINF) for each in (attack, single))
    assert torch.equal(at_once.robust, in_turn.robust)
    robust = at_once.robust | torch.full_like(at_once.robust, attack.minimises)
    assert robust.any()
    for name in ("forwards", "backwards"):
        assert torch.equal(getattr(at_once, name)[robust], getattr(in_turn, name)[robust]), name
    assert torch.allclose(at_once.x_adv[robust], in_turn.x_adv[robust], rtol=0, atol=1e-9)
    assert torch.allclose(at_once.distance[robust], in_turn.distance[robust], rtol=0, atol=1e-9)


def test_a_sample_that_falls_in_one_round_retires_from_all() -> None:
    net = network()
    data = images(net, torch.float64)
    attack = APGD(steps=30, loss="dlr", targets=3)
    verdict = Judge(seed=3, precision="float64")(net, data, attack, LINF)
    broken = verdict.clean & ~verdict.robust
    late = broken & (verdict.forwards > attack.steps + 2)  # not in the first round, which is alone
    assert late.any() and (verdict.forwards[late] < attack.cost(4)[0]).any()


def test_what_it_costs_does_not_depend_on_batch_or_memory() -> None:
    net = network()
    data = images(net, torch.float64)

    def verdict(rows: Tensor, batch: int) -> Verdict:
        return Judge(seed=3, precision="float64", batch_size=batch)(net, chosen(data, rows), PAIRS[0][0], LINF)

    whole = verdict(torch.arange(COUNT), COUNT)
    for batch in (1, 7):
        part = verdict(torch.arange(15), batch)
        for name in ("robust", "forwards", "backwards"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[:15]), name


def test_no_query_for_gradients_is_larger_than_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    data = images(net)
    sizes: list[int] = []
    grad = Oracle.grad

    def counted(self: Oracle, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        sizes.append(len(x))
        return grad(self, x, *rest)

    monkeypatch.setattr(Oracle, "grad", counted)
    evaluated = ThreatModel.parse("linf:1e-5")
    Judge(batch_size=20)(net, data, PAIRS[0][0], evaluated)
    assert max(sizes) <= 20 and 18 in sizes  # nine samples, two targets each, at most: rows of one batch
    sizes.clear()
    Judge(batch_size=20, budget=10_000)(net, data, PAIRS[0][0], evaluated)
    assert len(sizes) == 18 * -(-COUNT // 20)  # a budget is spent in order: one target after the other


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright], 1)


@pytest.mark.parametrize("minimises", [False, True])
def test_a_sample_asked_about_several_times_at_once_has_one_meter_and_keeps_its_best(minimises: bool) -> None:
    x = torch.full((3, 1, 2, 2), 0.4)
    y = torch.zeros(3, dtype=torch.int64)
    whole = Oracle(
        Bright(), x, y, ThreatModel.parse("linf:0.3"), Access.GRADIENTS, Draws(0, torch.arange(3)), minimises=minimises
    )
    view = whole[torch.tensor([1, 2, 1, 1])]
    brighter = torch.tensor([0.15, 0.05, 0.25, 0.2]).view(-1, 1, 1, 1)
    view.logits(x[[1, 2, 1, 1]] + brighter)
    view.grad(x[[1, 2, 1, 1]], y[[1, 2, 1, 1]], lambda logits, _: logits[:, 1])
    assert whole.forwards.tolist() == [0, 6, 2] and whole.backwards.tolist() == [0, 3, 1]
    assert view.forwards.tolist() == [6, 2, 6, 6]
    kept = (whole.best(x) - x).flatten(1).amax(1)
    assert torch.allclose(kept, torch.tensor([0.0, 0.15 if minimises else 0.25, 0.0]), atol=1e-6)
    if not minimises:
        assert view.done.tolist() == [True, False, True, True]
