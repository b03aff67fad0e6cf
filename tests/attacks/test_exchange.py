"""Exchanges that learn: what enters is near or new, what leaves is worth least, and it stays k pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_local.attacks import _exchange
from robustbench_local.attacks._exchange import learnt, proposed, unlearnt
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws


def at(x: Tensor, places: list[int]) -> State:
    """These pixels of a black image are white, and nothing was tried."""
    chosen = torch.zeros_like(x[:, 0], dtype=torch.bool).flatten(1)
    chosen[:, places] = True
    image = torch.where(chosen.view_as(x[:, :1]), 1.0, x)
    return {"best": image, "best_chosen": chosen} | unlearnt(x)


def refused(state: State, x: Tensor, steps: int, worth: Tensor) -> tuple[State, list[State]]:
    """Proposals of which none is better: a pixel that leaves costs what it is worth (P,)."""
    draws, asked = Draws(0, torch.arange(len(x))), []
    for _ in range(steps):
        asked.append(proposed(state, x, draws, int(state["best_chosen"][0].sum()), 1))
        state = state | learnt(state, asked[-1], -worth[asked[-1]["left"][:, 0]])
    return state, asked


@pytest.mark.parametrize(("near", "least", "most"), [(0.5, 0.55, 0.65), (0.0, 0.1, 0.25)])
def test_half_of_what_is_tried_is_next_to_one_of_the_k(
    near: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the other half is, too. The twin's may be anywhere."""
    monkeypatch.setattr(_exchange, "NEAR", near)
    x = torch.zeros(2000, 1, 9, 9)
    state = at(x, [20, 59])
    around = F.max_pool2d(state["best_chosen"].float().view_as(x), 3, stride=1, padding=1).flatten(1) > 0
    entered = proposed(state, x, Draws(1, torch.arange(2000)), 2, 1)["entered"]
    assert least < around.gather(1, entered).double().mean() < most
    assert not state["best_chosen"].gather(1, entered).any()  # black ones that are white have no third colour


@pytest.mark.parametrize(("again", "least", "most"), [(0.25, 54, 60), (1.0, 30, 46)])
def test_hardly_an_exchange_comes_twice(
    again: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Different ones of 60, of the 66 that there are. The twin tries what it tried as often as the rest."""
    monkeypatch.setattr(_exchange, "AGAIN", again)
    x = torch.zeros(20, 1, 5, 5)
    asked = refused(at(x, [0, 12, 24]), x, 60, torch.ones(25))[1]
    pairs = torch.stack([each["entered"][:, 0] * 25 + each["left"][:, 0] for each in asked], 1)
    assert least < sum(len(row.unique()) for row in pairs) / len(pairs) < most


@pytest.mark.parametrize("learns", [True, False])
def test_the_pixel_leaves_without_which_the_loss_is_highest(learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each has left. The twin knows nothing of what they are worth."""
    if not learns:
        monkeypatch.setattr(_exchange, "RECENT", 0.0)
    x, alike, worth = torch.zeros(50, 1, 12, 12), torch.ones(144), torch.ones(144)
    worth[77] = 0.1
    state, asked = refused(at(x, [30, 77, 100, 119]), x, 4, alike)
    assert all(set(row.tolist()) == {30, 77, 100, 119} for row in torch.cat([each["left"] for each in asked], 1))
    _, asked = refused(state, x, 40, worth)
    share = (torch.cat([each["left"] for each in asked], 1)[:, 4:] == 77).double().mean()
    assert share > 0.8 if learns else share < 0.3


def test_a_better_point_begins_a_new_count() -> None:
    """What each pixel is worth stays known, but for the new one."""
    x = torch.zeros(9, 1, 12, 12)
    state, asked = refused(at(x, [30, 77, 100]), x, 10, torch.ones(144))
    known = learnt(state, asked[-1], torch.ones(9))
    entered, left = asked[-1]["entered"], asked[-1]["left"]
    assert state["tried"].sum(1).eq(10).all() and not known["tried"].any()
    assert known["without"].gather(1, entered).eq(torch.inf).all()
    stay = asked[-1]["chosen"].scatter(1, entered, False)
    assert (known["without"][stay] == -1).all() and (known["without"].gather(1, left) > -1).all()


@pytest.mark.parametrize(("channels", "grey", "may"), [(1, 0.0, False), (1, 0.5, True), (3, 0.0, True)])
def test_one_of_the_k_may_get_another_colour_where_there_is_one(channels: int, grey: float, may: bool) -> None:
    """Of one channel, black and white are all the colours there are."""
    x = torch.full((300, channels, 4, 4), grey)
    state = at(x, [5, 6])
    each = proposed(state, x, Draws(0, torch.arange(300)), 2, 1)
    again = each["entered"] == each["left"]
    assert bool(again.any()) is may and (each["chosen"].sum(1) == 2).all()
    place = each["entered"][again].view(-1, 1, 1).expand(-1, channels, 1)
    colour = each["x_adv"].flatten(2)[again[:, 0]].gather(2, place)
    assert ((colour == 0) | (colour == 1)).all() and bool((colour != 1).any()) is may


@pytest.mark.parametrize("at_once", [2, 3])
def test_several_at_once_are_different_pixels(at_once: int) -> None:
    x = torch.zeros(40, 3, 6, 6)
    state = at(x, [1, 8, 20, 21])
    each = proposed(state, x, Draws(0, torch.arange(40)), 4, at_once)
    assert (each["chosen"].sum(1) == 4).all()
    assert (each["chosen"] & state["best_chosen"]).sum(1).eq(4 - at_once).all()
    changed = (each["x_adv"] != x).any(1).flatten(1)
    assert torch.equal(changed, each["chosen"])
