"""Swaps by gradients: the fewest pixels where brute force knows them, away from sets that no exchange betters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks import _swaps
from robustbench_local.attacks._sparser import first
from robustbench_local.attacks._swaps import Swaps
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import evaluate

ANY = ThreatModel(Norm.L0, 64)


class Bonus(nn.Module):
    """Class 1 by what each feature is worth (1, C, H, W), and more where the first two pixels are both white."""

    def __init__(self, worth: Tensor, bonus: float, needed: float) -> None:
        super().__init__()
        self.worth, self.bonus, self.needed = nn.Parameter(worth), bonus, needed

    def forward(self, x: Tensor) -> Tensor:
        both = x[:, :, 0, 0].amin(1) * x[:, :, 0, 1].amin(1)
        score = (self.worth * x).sum((1, 2, 3)) + self.bonus * both
        return torch.stack([torch.full_like(score, self.needed), score], 1)


@dataclass(frozen=True)
class White(Attack):
    """All pixels white but the first `black`."""

    minimises: ClassVar[bool] = True
    black: int = 0

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        white = torch.ones_like(x)
        white.flatten(2)[:, :, : self.black] = 0
        return white


@dataclass(frozen=True)
class Swapped(Suite):
    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L0})
    minimises: ClassVar[bool] = True

    steps: int = 100
    black: int = 0

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"white": White(self.black), "swaps": Swaps(steps=self.steps)}


def found(model: nn.Module, x: Tensor, attack: Attack) -> Verdict:
    return evaluate(model, x, torch.zeros(len(x), dtype=torch.int64), attack, ANY)


def fewest(model: nn.Module, shape: tuple[int, int, int], most: int) -> int:
    """How many white pixels of a black image make it class 1, by trying all sets of up to `most`."""
    pixels = range(shape[1] * shape[2])
    for size in range(1, most + 1):
        sets = torch.tensor(list(combinations(pixels, size)))
        image = torch.zeros(len(sets), shape[0], len(pixels))
        image.scatter_(2, sets[:, None].expand(-1, shape[0], -1), 1.0)
        if (model(image.view(-1, *shape)).argmax(1) == 1).any():
            return size
    raise AssertionError(f"no set of up to {most} pixels is enough")


@pytest.mark.parametrize("channels", [1, 3])
def test_on_true_gradients_it_finds_the_fewest_pixels(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    worth = torch.rand(1, channels, 5, 5, generator=torch.Generator().manual_seed(2))
    model = Bonus(worth, 0.0, 0.9 * channels * 3)
    least = fewest(model, (channels, 5, 5), 5)
    assert least > 2
    x = torch.zeros(2, channels, 5, 5)
    assert (found(model, x, Swapped()).distance == least).all()

    def least_first(score: Tensor, count: Tensor) -> Tensor:
        return first(torch.where(score.isfinite(), -score, score), count)

    monkeypatch.setattr(_swaps, "first", least_first)  # the twin
    assert (found(model, x, Swapped()).distance > least).all()


@pytest.mark.parametrize("broken", [False, True])
def test_the_tabu_list_leaves_what_no_exchange_betters(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two pixels are worth least each, and together more than any three others; at first they are black."""
    model = Bonus(torch.linspace(0.5, 1, 9).view(1, 1, 3, 3), 2.0, 2.8)
    assert fewest(model, (1, 3, 3), 4) == 2
    if broken:  # the twin: no pixel is tabu
        monkeypatch.setattr(_swaps, "OUT", 0)
        monkeypatch.setattr(_swaps, "IN", 0)
    verdict = found(model, torch.zeros(4, 1, 3, 3), Swapped(black=2))
    assert (verdict.distance == (3 if broken else 2)).all()


def test_it_costs_its_steps_and_ends_at_one_pixel() -> None:
    worth = torch.ones(1, 1, 4, 4)
    verdict = found(Bonus(worth, 0.0, 1.5), torch.zeros(2, 1, 4, 4), Swapped(steps=30))
    assert (verdict.distance == 2).all()
    assert Swaps(steps=30).cost(10) == (30, 30)
    assert (verdict.backwards == 30).all() and (verdict.forwards == 31).all()  # and the image it began at
    enough = found(Bonus(worth, 0.0, 0.5), torch.zeros(2, 1, 4, 4), Swapped(steps=30))
    assert (enough.distance == 1).all() and (enough.backwards < 20).all()


def test_without_any_success_it_asks_once() -> None:
    verdict = found(Bonus(torch.ones(1, 1, 4, 4), 0.0, 99.0), torch.zeros(2, 1, 4, 4), Swapped())
    assert verdict.robust.all() and (verdict.backwards == 1).all()
