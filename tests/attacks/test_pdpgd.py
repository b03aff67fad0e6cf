"""PDPGD: it finds nearer images in L1 than FMN and FAB where gradients are masked, and every part of it is needed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model


@dataclass(frozen=True)
class Unweighted(PDPGD):
    """The weights stay as they were at first: all on the margin."""

    def _shrunk(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int, steps: int
    ) -> State:
        return super()._shrunk(state, oracle, x, y, threat, i, steps) | {"weight": state["weight"]}


@dataclass(frozen=True)
class Forgetful(PDPGD):
    """FMN begins at the clean image, not at the nearest success."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        return super().step(state | {"nearest": x}, oracle, x, y, threat, draws, i)


def median(source: str, attack: Attack, images: int = 12) -> float:
    x, y = load_data("mnist", n=images, source="bundled")
    verdict = evaluate(load_model(f"zoo:{source}"), x, y, attack, "l1:784")
    assert verdict.forwards.max() <= 250
    return float(torch.where(verdict.robust, torch.inf, verdict.distance)[verdict.clean].median())


@pytest.mark.slow
def test_where_gradients_are_masked_it_comes_nearer_than_fmn_and_fab_for_the_same_passes() -> None:
    source = "mnist/adversarial_training"
    ours, polished = median(source, PDPGD(steps=240)), median(source, PDPGD(steps=240, polish=0.4))
    others = min(median(source, FMN(steps=240)), median(source, FAB(steps=40)))  # FAB: 80 forwards, 400 backwards
    assert max(ours, polished) < 0.8 * others
    assert median(source, Unweighted(steps=240)) > 2 * ours
    assert median(source, Forgetful(steps=240, polish=0.4)) > 1.2 * polished


@pytest.mark.slow
def test_fmn_from_the_nearest_success_comes_nearer_on_an_undefended_network() -> None:
    ours, polished = median("mnist/none", PDPGD(steps=240)), median("mnist/none", PDPGD(steps=240, polish=0.4))
    assert polished < 0.95 * ours and polished < 1.05 * median("mnist/none", FMN(steps=240))
