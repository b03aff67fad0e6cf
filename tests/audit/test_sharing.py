"""A mean over draws that hides what ten questions would find is named, and one that hides nothing is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_local.audit.checklist import audit_rows
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import RowFinding
from robustbench_local.audit.sharing import Fixed, unshared
from robustbench_local.audit.subject import Subject
from robustbench_local.core.defense import Defended, call, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.threat import ThreatModel
from tests.helpers.rows import a_row

N = 20
EFFORT = Effort(steps=5, random=N, eot=3, process=False)


class Bright(Defended):
    """Whether an image is bright; luck (N, 1) by its draws is added to the mean of its pixels, which is 0.2 or 0.8."""

    stochastic = True

    def __init__(self, luck: Callable[[Draws], Tensor]) -> None:
        super().__init__()
        self.luck = luck

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        score = 20 * (x.mean((1, 2, 3))[:, None] + self.luck(draws_for(x, draws)) - 0.5)
        return torch.cat([-score, score], 1)


def slip(draws: Draws) -> Tensor:
    """One draw in seven is far off, towards either side, and nothing is in between."""
    return (draws.uniform(1) < 2 / 7) * torch.where(draws.uniform(1) < 0.5, 1.0, -1.0)


def shiver(draws: Draws) -> Tensor:
    return 0.01 * draws.normal(1)


def flat() -> tuple[Tensor, Tensor]:
    """No two alike, which would meet the same numbers."""
    place = torch.arange(N)
    return (0.2 + 0.6 * (place % 2) + place / 1e4).view(N, 1, 1, 1).expand(N, 1, 4, 4).contiguous(), place % 2


def asked(luck: Callable[[Draws], Tensor]) -> Finding:
    model = Bright(luck)
    with as_deployed(model):
        return unshared(Subject(model, *flat(), ThreatModel.parse("linf:0.1"), effort=EFFORT))


def test_luck_that_ten_questions_undo_is_named() -> None:
    found = asked(slip)
    assert found.status is Status.SUSPICIOUS
    assert found.figures["mean"] == pytest.approx(6 / 7, abs=0.08)
    assert found.figures["worst_of_ten"] == pytest.approx((6 / 7) ** 10, abs=0.08)
    assert found.figures["fixed"] in (0.5, 1.0)  # the one draw slips for nobody, or for all of a class
    assert "with the randomness fixed" in found.evidence


def test_draws_that_share_their_weakness_are_sound() -> None:
    found = asked(shiver)
    assert found.status is Status.SOUND and found.figures["mean"] == found.figures["worst_of_ten"] == 1
    assert found.figures["fixed"] == 1


def test_fixed_randomness_is_the_same_in_every_query_and_anothers_by_its_seed() -> None:
    x, _ = flat()
    model, draws = Bright(shiver), Draws(3, torch.arange(N))
    first = call(Fixed(model, 0), x, draws)
    assert torch.equal(first, call(Fixed(model, 0), x, draws.stream("later")))
    assert torch.equal(first[5:], call(Fixed(model, 0), x[5:], None))
    assert not torch.equal(first, call(Fixed(model, 1), x, draws)) and not torch.equal(first, call(model, x, draws))


def of_rows(*right: list[int], draws: int = 20) -> RowFinding | None:
    """Of attacks that leave so many draws of each image right."""
    arrays = {}
    rows = []
    for place, each in enumerate(right):
        bits = np.arange(draws) < np.array(each)[:, None]
        row, bits = a_row(bits.tolist(), attack=("pgd", "fgsm")[place], draws=draws, ids=f"0:{len(each)}")
        arrays[row.key] = {"bits": bits, "robust": bits.mean(1) > 0.5, "clean": np.ones(len(each), bool)}
        rows.append(row)
    found = [each for group in audit_rows(rows, lambda row: arrays[row.key]).values() for each in group]
    return next((each for each in found if each.finding.check == unshared.name), None)


def test_of_rows_it_is_the_worst_case_that_counts() -> None:
    lucky = of_rows([18] * 30)
    assert lucky and lucky.finding.status is Status.SUSPICIOUS and not lucky.attack
    assert lucky.finding.figures["mean"] == pytest.approx(0.9)
    weak_beside_strong = of_rows([18] * 30, [0] * 30)
    assert weak_beside_strong and weak_beside_strong.finding.status is Status.SOUND
    shared = of_rows([20] * 15 + [0] * 15)
    assert shared and shared.finding.status is Status.SOUND and shared.finding.figures["worst_of_ten"] == 0.5
    assert of_rows([5] * 30, draws=9) is None
