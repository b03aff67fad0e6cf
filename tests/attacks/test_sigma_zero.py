"""Sigma-zero: the fewest pixels of a linear model in closed form, and fewer than other L0 attacks at equal passes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.jsma import JSMA
from robustbench_local.attacks.sigma_zero import SigmaZero
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from tests.helpers.fewest_pixels import halves


@dataclass(frozen=True)
class Uncounted(SigmaZero):
    """Nothing makes the changes fewer but the threshold."""

    def _slope_of_count(self, delta: Tensor) -> Tensor:
        return torch.zeros_like(delta)


@dataclass(frozen=True)
class Unthresholded(SigmaZero):
    """Changes shrink and never go."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        state["threshold"] = torch.zeros_like(state["threshold"])
        return super().step(state, oracle, x, y, threat, draws, i)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fewest_pixels_across_a_plane_are_found_or_one_more(channels: int) -> None:
    model, x, y, fewest = halves(channels)

    def more(attack: Attack) -> Tensor:
        verdict = evaluate(model, x, y, attack, "l0:36", precision="float64")
        return torch.where(verdict.robust, torch.inf, verdict.distance) - fewest

    found = more(SigmaZero(steps=100))
    assert found.min() >= 0 and found.max() <= 1 and found.mean() <= 0.5
    for twin in (Uncounted(steps=100), Unthresholded(steps=100)):
        assert more(twin).mean() > 2 * found.mean()


def test_a_pixel_counts_once_whatever_its_channels() -> None:
    """Class 1 wants three channels of one pixel, or one channel each of three others: the one pixel it is."""

    class Colours(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ink = 1.02 * x[:, :, 1, 1].sum(1) + x[:, 0, 3, :3].sum(1)
            return torch.stack([2.9 - ink, ink - 2.9], 1)

    x, y = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    verdict = evaluate(Colours(), x, y, SigmaZero(steps=200), "l0:16")
    assert not verdict.robust.any() and verdict.distance.eq(1).all()


def test_a_slope_that_is_nowhere_finite_once_is_forgotten() -> None:
    """The square root's is infinite at black, and NaN where the pixel has no weight."""

    class Rooted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ink = x.sqrt().flatten(1) @ torch.linspace(0, 1, 16)[:, None]
            return torch.cat([1.5 - ink, ink - 1.5], 1)

    x, y = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    verdict = evaluate(Rooted(), x, y, SigmaZero(steps=50), "l0:16")
    assert not verdict.robust.any()


def median(verdict: Verdict) -> float:
    return float(torch.where(verdict.robust, torch.inf, verdict.distance)[verdict.clean].median())


@pytest.mark.slow
@pytest.mark.parametrize("source", [pytest.param("mnist/none", marks=pytest.mark.slow), "mnist/adversarial_training"])
def test_at_equal_passes_it_needs_fewer_pixels_than_fmn_and_jsma(source: str) -> None:
    model = load_model(f"zoo:{source}")
    x, y = load_data("mnist", n=16, source="bundled")
    ours, fmn, jsma = (
        evaluate(model, x, y, attack, "l0:784") for attack in (SigmaZero(steps=200), FMN(steps=200), JSMA())
    )
    assert ours.forwards.max() <= fmn.forwards.max() and not ours.robust[ours.clean].any()
    share = 0.7 if source == "mnist/adversarial_training" else 1
    assert median(ours) <= share * median(fmn) and median(ours) < 0.7 * median(jsma)
    for twin in (Uncounted(steps=200), Unthresholded(steps=200)):
        assert median(evaluate(model, x, y, twin, "l0:784")) > median(fmn)
