"""Sparse PGD and Sparse AutoAttack: what can fall in an L0 ball falls, by either gradient; the suite adds them up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from robustbench_local.attacks.sparse_autoattack import SparseAutoAttack
from robustbench_local.attacks.sparse_rs import SparseRS
from robustbench_local.attacks.spgd import SPGD
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from tests.helpers.fewest_pixels import halves


@dataclass(frozen=True)
class Unscored(SPGD):
    """Pixels are chosen once."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        new = super().step(state, oracle, x, y, threat, draws, i)
        kept = {"scores": state["scores"], "chosen": state["chosen"], "same": 0 * state["same"]}
        return new | kept | {"x_adv": x + new["colours"] * state["chosen"]}


@dataclass(frozen=True)
class Uncoloured(SPGD):
    """Colours are drawn once."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        new = super().step(state, oracle, x, y, threat, draws, i)
        return new | {"colours": state["colours"], "x_adv": x + state["colours"] * new["chosen"]}


def left(attack: Attack, channels: int, pixels: int) -> tuple[int, int]:
    """(how many images can fall to so many pixels, how many of them are left); none falls that cannot."""
    model, x, y, fewest = halves(channels)
    verdict = evaluate(model, x, y, attack, f"l0:{pixels}", precision="float64")
    can = fewest <= pixels
    assert verdict.robust[~can].all() and (verdict.distance <= pixels).all()
    return int(can.sum()), int((verdict.robust & can).sum())


@pytest.mark.parametrize("gradient", ["projected", "unprojected"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_can_fall_falls_and_nothing_else(channels: int, gradient: str) -> None:
    can, standing = left(SPGD(steps=100, gradient=gradient), channels, 3)  # type: ignore[arg-type]
    assert can >= 10 and standing <= 0.1 * can
    for twin in (Unscored, Uncoloured):
        assert left(twin(steps=100, gradient=gradient), channels, 3)[1] > max(2, 3 * standing), twin  # type: ignore[arg-type]


def test_the_suite_is_the_published_one() -> None:
    members = SparseAutoAttack().members(Norm.L0)
    assert [*members.values()] == [
        SPGD(steps=300, gradient="unprojected", step_size=0.25, score_step=0.25, patience=3),
        SPGD(steps=300, gradient="projected", step_size=0.25, score_step=0.25, patience=3),
        SparseRS(steps=10_000, loss="ce", alpha_init=0.8),
    ]


@pytest.mark.slow
def test_it_leaves_no_more_than_any_member() -> None:
    """Gradients get further on an undefended network, and scores where gradients are masked."""

    def after(source: str, attack: Attack, threat: str) -> Verdict:
        x, y = load_data("mnist", n=20, source="bundled")
        return evaluate(load_model(f"zoo:{source}"), x, y, attack, threat)

    leads = []
    for source, threat in (("mnist/none", "l0:5"), ("mnist/adversarial_training", "l0:6")):
        suite = after(source, SparseAutoAttack(steps=60, queries=150), threat)
        gradients, scores = after(source, SPGD(steps=60), threat), after(source, SparseRS(steps=150), threat)
        assert suite.robust.sum() <= min(gradients.robust.sum(), scores.robust.sum()) + 1  # the draws differ
        leads.append(int(gradients.robust.sum()) - int(scores.robust.sum()))
    assert leads[0] < 0 < leads[1]


@pytest.mark.parametrize("name", ["steps", "restarts", "step_size", "score_step", "patience"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SPGD(**{name: 0})  # type: ignore[arg-type]
    for each in ("steps", "queries"):
        with pytest.raises(ConfigError, match=each):
            SparseAutoAttack(**{each: 0})
