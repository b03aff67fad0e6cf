"""Sparse-RS: the published schedule, exactly what can be broken is, and the planted pixels are found."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.sparse_rs import SparseRS
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ThreatError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge
from tests.helpers.score_based import (
    company_changes_nothing,
    costs_what_it_says,
    pixels_that_matter,
    reaches_targets,
    stays_inside,
)


@dataclass(frozen=True)
class NoStep(SparseRS):
    def propose(self, state: State, *rest: object, **more: object) -> State:
        return state


@dataclass(frozen=True)
class WrongSign(SparseRS):
    def _scored(self, state: State, oracle: Oracle, y: Tensor) -> State:
        state = super()._scored(state, oracle, y)
        return state | {"loss": -state["loss"]}


@dataclass(frozen=True)
class OneTooMany(SparseRS):
    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> State:
        return super().start(x, ThreatModel(threat.norm, threat.eps + 1), draws)


def fells_what_can_fall(attack: SparseRS, pixels: int) -> bool:
    model, data, ratio = pixels_that_matter(40, pixels)
    verdict = Judge()(model, data, attack, ThreatModel.parse(f"l0:{pixels}"))
    assert verdict.clean.all() and (verdict.distance <= pixels).all()
    return torch.equal(verdict.robust, ratio > 1)


@pytest.mark.parametrize("pixels", [1, 3])
def test_exactly_what_can_fall_falls(pixels: int) -> None:
    assert fells_what_can_fall(SparseRS(steps=1500), pixels)
    for broken in (WrongSign, NoStep) if pixels > 1 else (NoStep,):  # one pixel alone is drawn blindly
        assert not fells_what_can_fall(broken(steps=300), pixels), broken


@pytest.mark.parametrize("kind", ["deterministic", "random"])
@pytest.mark.parametrize("threat", ["l0:1", "l0:2"])
def test_company_changes_nothing(threat: str, kind: str) -> None:
    company_changes_nothing(SparseRS(steps=8, restarts=2), ThreatModel.parse(threat), kind)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threat", ["l0:0", "l0:1", "l0:5", "l0:40", "l0:42", "l0:99"])
def test_it_stays_inside(threat: str, channels: int) -> None:
    stays_inside(SparseRS(steps=30), ThreatModel.parse(threat), channels)
    if threat in ("l0:1", "l0:5"):
        with pytest.raises(AssertionError):
            stays_inside(OneTooMany(steps=30), ThreatModel.parse(threat), channels)


def test_cost_and_access() -> None:
    costs_what_it_says(SparseRS(steps=7, restarts=3), ThreatModel.parse("l0:2"))


def test_targets() -> None:
    reaches_targets(SparseRS(steps=100), ThreatModel.parse("l0:4"))


def test_the_published_settings_and_schedule() -> None:
    attack = SparseRS()
    assert (attack.steps, attack.alpha_init, attack.targeted_alpha_init) == (10_000, 0.3, 0.1)
    assert (attack.loss, attack.targeted_loss, attack.restarts) == ("margin", "ce", 1)
    x, threat, draws = torch.full((1, 1, 50, 50), 0.5), ThreatModel.parse("l0:1200"), Draws(0, torch.arange(1))
    state = attack.start(x, threat, draws)
    assert int(state["chosen"].sum()) == 1200
    for targeted, alpha in ((False, 0.3), (True, 0.1)):
        for i, divisor in ((1, 2), (50, 2), (51, 4), (300, 5), (600, 6), (1500, 8), (3000, 10), (9999, 20)):
            proposal = attack.propose(state, x, threat, draws.stream(i), i, targeted=targeted)
            recoloured = (proposal["x_adv"] != state["x_adv"]).any(1).flatten(1) & proposal["chosen"]
            assert 0.7 * int(alpha / divisor * 1200) <= int(recoloured.sum()) <= int(alpha / divisor * 1200), i
            assert int(proposal["chosen"].sum()) == 1200
            changed = (proposal["x_adv"] != x).flatten(1)
            assert torch.equal(changed, proposal["chosen"])
            assert proposal["x_adv"].flatten(1)[changed].frac().eq(0).all()


def test_no_query_is_wasted() -> None:
    """On black and white images too, each pixel that enters changes."""
    x = torch.randint(2, (30, 1, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    state = SparseRS().start(x, ThreatModel.parse("l0:4"), Draws(0, torch.arange(30)))
    assert ThreatModel.parse("l0:4").distance(state["x_adv"], x).eq(4).all()


@pytest.mark.parametrize("settings", [dict(steps=0), dict(alpha_init=0), dict(targeted_alpha_init=2), dict(loss="x")])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SparseRS(**settings)  # type: ignore[arg-type]


def test_only_l0() -> None:
    model, data, _ = pixels_that_matter(2, 1)
    with pytest.raises(ThreatError, match="does not know the norm linf"):
        evaluate(model, data.x, data.labels, SparseRS(), "linf:0.1")
