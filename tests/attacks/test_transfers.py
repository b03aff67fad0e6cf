"""Transfers: nearer in L1 where slopes say nothing, in the box, alone in any batch, and at its price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import _transfers
from robustbench_local.attacks._transfers import REACH, Transfers, handed, neighbour
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import evaluate

ANY = ThreatModel(Norm.L1, 1e6)


class Cut(nn.Module):
    """Class 1 by what coordinates are worth whose brightness has passed 0.3, all of it from 0.5 on."""

    def __init__(self, worth: Tensor, needed: float) -> None:
        super().__init__()
        self.worth, self.needed = nn.Parameter(worth), needed

    def forward(self, x: Tensor) -> Tensor:
        score = ((x.flatten(1) - 0.3) * 5).clamp(0, 1) @ self.worth
        return torch.stack([torch.full_like(score, self.needed), score], 1)


@dataclass(frozen=True)
class White(Attack):
    minimises: ClassVar[bool] = True

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return torch.ones_like(x)


@dataclass(frozen=True)
class Dusty(Attack):
    """One pixel is white, the others hardly changed."""

    minimises: ClassVar[bool] = True

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x + 1e-6
        x_adv[:, :, 0, 0] = 1
        return x_adv


@dataclass(frozen=True)
class Transferred(Suite):
    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})
    minimises: ClassVar[bool] = True

    search: Attack = field(default_factory=Transfers)
    start: Attack = field(default_factory=White)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"start": self.start, "transfers": self.search}


class Giving(Transfers):
    """Nothing is handed on: every step gives up some more."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        beaten = torch.ones_like(state["beaten"])
        return super().step(state | {"beaten": beaten}, oracle, x, y, threat, draws, i)


def dark(images: int, channels: int = 1) -> Tensor:
    return torch.rand(images, channels, 5, 5, generator=torch.Generator().manual_seed(1)) / 100


def cut(needed: float = 2.5) -> Cut:
    return Cut(torch.linspace(0, 1, 25)[torch.randperm(25, generator=torch.Generator().manual_seed(2))], needed)


def found(model: nn.Module, x: Tensor, attack: Attack, batch_size: int = 100) -> Verdict:
    y = torch.zeros(len(x), dtype=torch.int64)
    return evaluate(model, x, y, attack, ANY, batch_size=batch_size)


def test_it_finds_what_slopes_do_not_show() -> None:
    """The three that are worth most are enough, 0.5 each; it moves what is changed as a whole, so that some is lost."""
    x = dark(4)
    verdict = found(cut(), x, Transferred(search=Transfers(steps=300)))
    assert not verdict.robust.any()
    assert (verdict.distance < 1.6 * 1.5).all() and (verdict.distance > 1.3).all()
    assert torch.allclose(verdict.distance, (verdict.x_adv - x).abs().flatten(1).sum(1))
    assert ((verdict.x_adv >= 0) & (verdict.x_adv <= 1)).all()
    given = found(cut(), x, Transferred(search=Giving(steps=300))).distance  # the twin
    assert (given > verdict.distance).all() and given.mean() > 2 * 1.5


def test_dust_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, attack = Cut(torch.ones(25), 0.5), Transferred(Transfers(steps=1), Dusty())
    assert (found(model, dark(4), attack).distance < 0.98).all()
    monkeypatch.setattr(_transfers, "DUST", 0)  # the twin
    assert (found(model, dark(4), attack).distance > 0.98).any()


def test_it_costs_its_steps_and_no_gradients() -> None:
    verdict = found(cut(), dark(2), Transferred(search=Transfers(steps=50)))
    assert Transfers(steps=50).cost(10) == (50, 0)
    assert (verdict.forwards == 51).all() and not verdict.backwards.any()  # and the image it began at


def test_each_image_is_searched_alone() -> None:
    x, attack = dark(5), Transferred(search=Transfers(steps=60))
    whole, parts = (found(cut(), x, attack, batch_size=size) for size in (5, 2))
    assert torch.equal(whole.x_adv, parts.x_adv) and torch.equal(whole.forwards, parts.forwards)
    assert len(whole.distance.unique()) > 1


def test_without_any_success_it_asks_once() -> None:
    verdict = found(cut(needed=99), dark(2), Transferred())
    assert verdict.robust.all() and (verdict.forwards <= 3).all()


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_a_change_is_handed_on_and_the_ball_is_used_up(eps: float) -> None:
    """Five coordinates share the budget, and part of it may have been left over. Only the box keeps a taker from it."""
    x, threat = dark(200, channels=3), ThreatModel(Norm.L1, eps)
    x_adv = x.clone()
    x_adv[:, 1, :, 2] += 0.9 * eps / 5
    image = handed(x_adv, x, threat, Draws(0, torch.arange(200)))
    differ = (image != x_adv).flatten(1).sum(1)
    assert threat.contains(image, x).all() and (differ <= 2).all() and (differ == 2).any()
    back = (x_adv != x) & (image == x)  # who gave, unless it took as well
    assert (back.flatten(1).sum(1) == (differ == 2)).all()
    full = (image >= 1 - 1e-6).flatten(1).any(1) | (image <= 1e-6).flatten(1).any(1)
    assert torch.allclose(threat.distance(image, x)[~full], torch.tensor(eps), rtol=1e-4) and not full.all()


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbours_are_in_reach_in_the_same_channel(channels: int, height: int = 6, width: int = 7) -> None:
    x = torch.zeros(channels * height * width, channels, height, width)
    centre = torch.arange(len(x))[:, None]
    seen: list[set[int]] = [set() for _ in centre]
    for draw in torch.arange(0, 1, 0.01):
        for near, of in zip(neighbour(centre, draw.expand(centre.shape), x)[:, 0].tolist(), seen, strict=True):
            of.add(near)
    for place, near in enumerate(seen):
        channel, row, column = place // (height * width), place // width % height, place % width
        rows = range(max(0, row - REACH), min(height, row + REACH + 1))
        columns = range(max(0, column - REACH), min(width, column + REACH + 1))
        assert near == {(channel * height + down) * width + right for down in rows for right in columns}
