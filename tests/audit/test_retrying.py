"""What a second attempt spends: all it wants where the rows spent enough, otherwise little, on the nearest images."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_local.audit.escalation import _nearest_first
from robustbench_local.audit.retrying import Expected, Retrying, expected_passes, few_within, passes
from robustbench_local.audit.stronger import DRAWN, EFFORT, FEW, LEAST, SHARE, SHORTEST
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.budget import JUDGED
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.storage.row import Row

BEST = find_attack("best", {"effort": EFFORT})
FULL = sum(BEST.cost(10)) + 3  # passes of an image that does not fall, and of judging it
IDS = np.arange(20)
FLOOR = SHORTEST[Norm.LINF]
LINF = ThreatModel.parse("linf:0.3")


EOT, DRAWS = 10, 20  # of a random model


def row(**results: Any) -> Row:
    about = {"threat": "linf:0.3", "seed": 0, "eot": EOT, "draws": DRAWS}
    found = {"per_class": [{}] * 10, "stochastic": False, "n": 50, "forwards_mean": 10.0, "backwards_mean": 9.0}
    return Row(key="0", status="ok", definition=about, results=found | results)


@dataclass
class Told(Retrying):
    """Asks nobody: images below `fall` fall, for `cheap` passes each. asked: (images, queries) of each try; drew: the
    draws per query.
    """

    cheap: float = 20.0
    fall: int = 0
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    drew: list[int] = field(default_factory=list)

    def _judged(self, attack: Any, ids: Any, queries: int | None, draws: int) -> Any:
        self.asked.append((len(ids), queries))
        self.drew.append(draws)
        robust = torch.as_tensor(ids) >= self.fall
        dear = FULL if queries is None else min(FULL, 2 * queries)
        self.spent += float(torch.where(robust, dear, self.cheap).sum()) * max(1.0, FEW / len(ids))
        return SimpleNamespace(ids=torch.as_tensor(ids), clean=torch.ones(len(ids), dtype=torch.bool), robust=robust)


def told(budget: float, *, random: bool = False, **given: Any) -> Told:
    nobody = Tensors(torch.zeros(0), torch.zeros(0), torch.zeros(0))
    return Told(BEST, row(stochastic=random), nn.Identity(), nobody, budget, AnswerCache(), **given)


def test_where_the_rows_spent_enough_all_are_tried_in_full_at_once() -> None:
    retrying = told(len(IDS) * FULL)
    retrying(IDS)
    assert retrying.asked == [(20, None)] and retrying.limits(20) == [] and retrying.spent <= retrying.budget


@pytest.mark.parametrize("images", [12, 15, 19])
def test_otherwise_the_first_in_full_and_never_more_than_the_budget(images: int) -> None:
    retrying = told(images * FULL + 200)
    retrying(IDS)
    assert retrying.asked[0] == (images, None) and retrying.spent <= retrying.budget
    assert retrying.limits(20) == [f"tried on {images}, the nearest first"]


def test_what_falls_early_leaves_more_for_the_others() -> None:
    retrying = told(13 * FULL, fall=20)
    retrying(IDS)
    assert len(retrying.tried) == len(retrying.broken) == 20 and retrying.limits(20) == []
    assert [queries for _, queries in retrying.asked] == [None, None]


@pytest.mark.parametrize("budget", [0.0, 500.0, 1500.0])
def test_a_small_budget_is_shared_by_a_few_with_a_floor(budget: float) -> None:
    retrying = told(budget, fall=3)
    retrying(IDS)
    ((images, queries),) = retrying.asked
    assert images == FEW and queries is not None and queries >= FLOOR
    assert retrying.spent <= max(budget, 2 * FLOOR * FEW)
    assert retrying.broken == (0, 1, 2)
    assert retrying.limits(20) == [f"tried on {FEW}, the nearest first", f"on some with {queries} queries at most"]


def test_a_suspected_attack_is_looked_at_whatever_that_costs() -> None:
    retrying = told(0.0)
    retrying(np.arange(100), least=20)
    assert retrying.asked == [(20, None)]


def test_it_goes_on_only_where_it_could_try_some_more() -> None:
    for cheap in (20.0, FULL):
        retrying = told(1e9, fall=20, cheap=cheap)
        retrying(IDS)
        for more, enough in ((0, True), (-10, False)):
            retrying.budget = retrying.spent + FEW * cheap + more
            assert retrying.affords_some() is enough


@pytest.mark.parametrize(("fall", "blocks"), [(0, 1), (2, 1), (3, 2), (14, 2), (15, 3), (100, 9)])
def test_the_nearest_are_tried_until_hardly_any_fall(fall: int, blocks: int) -> None:
    retrying = told(1e9, fall=fall)
    retrying.nearest(np.arange(100))
    assert len(retrying.asked) == blocks and {queries for _, queries in retrying.asked} == {FLOOR}
    assert retrying.broken == tuple(range(fall))


def test_of_the_nearest_a_few_are_tried_in_any_case_and_more_for_half_the_budget() -> None:
    enough = FEW * (2 * FLOOR + JUDGED)
    for budget, blocks in ((0.0, 1), (enough, 1), (4 * FEW * FLOOR, 1), (2 * (2 * FEW * FLOOR + FEW * 20.0), 2)):
        retrying = told(budget, fall=100)
        retrying.nearest(np.arange(100))
        assert [images for images, _ in retrying.asked] == [FEW] * blocks


@pytest.mark.parametrize(("fall", "blocks"), [(0, 1), (1, 2), (4, 2), (5, 3), (100, 3)])
def test_of_a_random_model_with_little_budget_fewer_are_tried_and_as_many_as_ever_where_some_fall(
    fall: int, blocks: int
) -> None:
    retrying = told(0.0, fall=fall, random=True)
    retrying.nearest(np.arange(100))
    assert retrying.asked == [(LEAST, DRAWN * FLOOR)] * blocks and LEAST * 3 == FEW
    assert retrying.broken == tuple(range(min(fall, FEW)))


@pytest.mark.parametrize(
    ("images", "draws", "more"),
    [(0, 0, 0), (LEAST, DRAWN, 0), (LEAST, 7, 0), (LEAST, EOT, 0), (9, EOT, 50), (FEW, EOT, 1e9)],
)
def test_of_a_random_model_first_fewer_images_are_tried_and_then_with_fewer_draws(
    images: int, draws: int, more: float
) -> None:
    retrying = told(images * (2 * FLOOR * draws + JUDGED * DRAWS) + more, random=True)
    retrying.nearest(IDS)
    asked = max(draws, DRAWN)
    assert retrying.asked[0] == (max(images, LEAST), asked * FLOOR) and retrying.drew[0] == asked


def test_a_suspected_attack_on_a_random_model_is_looked_at_with_fewer_draws_too() -> None:
    for budget, draws in ((0.0, DRAWN), (1e9, EOT)):
        retrying = told(budget, random=True)
        retrying(IDS, least=10)
        assert (retrying.asked[0][1], retrying.drew[0]) == (None, draws)


def test_a_model_that_is_not_random_is_asked_once() -> None:
    assert [few_within(budget, 100, 1, 1) for budget in (0.0, 1e9)] == [(FEW, 1)] * 2


def test_who_fell_already_is_not_tried_again_and_who_was_asked_little_is() -> None:
    retrying = told(1e9, fall=2)
    retrying.nearest(np.arange(100))
    retrying(IDS)
    assert retrying.asked == [(12, FLOOR), (18, None)] and len(retrying.tried) == 20


def test_the_passes_of_a_row_are_all_it_asked() -> None:
    assert passes(row()) == 50 * (19 + 3)  # which every judge asks, unless its process asked before
    assert passes(row(judged_forwards=7, prepared_forwards=100, prepared_backwards=20)) == 50 * (19 + 3) + 120
    assert passes(row(stochastic=True)) == 50 * (19 + 3 * 20)


def test_what_is_to_be_expected_is_the_nearest_and_what_the_budget_leaves() -> None:
    def of(
        passes: float, *, robust: float = 50.0, attack: str = "pgd", aimless: bool = True, within: ThreatModel = LINF
    ) -> float:
        return expected_passes([Expected(attack, within, aimless, passes, robust)], 10, 1, 1)

    nearest = FEW * (2 * FLOOR + JUDGED)
    assert of(1e9) == nearest + 20 * FULL and of(0.0) == of(float("nan")) == nearest
    assert of((nearest + 2 * FEW * FLOOR - 1) / SHARE) == nearest
    assert of(5e4) == SHARE * 5e4
    assert of(0.0, robust=3.0) == nearest * 3 / FEW
    assert of(1e9, robust=0.4) == of(1e9, attack="best") == of(1e9, aimless=False) == 0.0
    assert of(1e9, within=ThreatModel.parse("l0:3")) == 0.0


@pytest.mark.parametrize("budget", [0.0, 2e3, 8e3, 3e4, 1e9])
@pytest.mark.parametrize("random", [False, True])
def test_what_is_expected_is_what_is_tried(budget: float, *, random: bool) -> None:
    retrying = told(budget, random=random)
    retrying.nearest(np.arange(20, 100))
    retrying(np.arange(10 if random else 20), whole=True)
    tried = 0.0
    for (images, queries), draws in zip(retrying.asked, retrying.drew, strict=True):
        each = draws * sum(BEST.cost(10)) if queries is None else 2 * queries
        tried += images * (each + JUDGED * (DRAWS if random else 1))
    eot, judged = (EOT, DRAWS) if random else (1, 1)
    told_before = expected_passes([Expected("pgd", LINF, True, budget / SHARE, 50.0)], 10, eot, judged)
    assert 0.8 < told_before / tried < 1.25, (told_before, tried)


def test_rows_that_do_not_tell_which_images_are_near_are_not_said_to() -> None:
    retrying = told(0.0, ordered=False)
    retrying(IDS)
    assert retrying.limits(20)[0] == f"tried on {FEW}"


def test_near_are_the_images_that_some_attack_came_near_to() -> None:
    margins = {
        "a": np.array([-5.0, -1.0, np.nan, -3.0], np.float16),
        "b": np.array([-4.0, -9.0, np.nan, -0.5], np.float16),
    }
    store: Any = SimpleNamespace(arrays=lambda key, name: {name: margins[key]} if key in margins else {})
    rows = [Row(key=key, status="ok", results={"n": 4}) for key in ("a", "b", "old")]
    assert _nearest_first(rows, store).tolist() == [3, 1, 0, 2]
    assert _nearest_first(rows[2:], store).tolist() == [0, 1, 2, 3]  # nobody knows
