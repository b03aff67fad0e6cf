"""`nearest`: within its passes, nearer than its members alone for as many, wherever the ball ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks import nearest
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.nearest import SPARSE, Nearest
from robustbench_local.attacks.pdpgd import PDPGD
from robustbench_local.attacks.sigma_zero import SigmaZero
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model

HUGE = {Norm.L0: 784.0, Norm.L1: 784.0, Norm.L2: 28.0, Norm.LINF: 0.49}
PASSES = 400


@dataclass(frozen=True)
class Forgetful(FMN):
    """It begins at the clean image, whatever was found before."""

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return super().init(oracle, x, y, threat, draws, restart) | {"x_adv": x}


class Apart(Nearest):
    """FMN knows nothing of what FAB has found."""

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        members = super().members(norm)
        return {name: Forgetful(steps=each.steps) if isinstance(each, FMN) else each for name, each in members.items()}


def distances(attack: Attack, norm: Norm, images: int = 8, eps: float | None = None) -> Tensor:
    """(N,): how far the nearest is that was found, on the zoo's robust network; infinite where none was."""
    x, y = load_data("mnist", n=images, source="bundled")
    verdict = evaluate(load_model("zoo:mnist/adversarial_training"), x, y, attack, ThreatModel(norm, eps or HUGE[norm]))
    assert int((verdict.forwards + verdict.backwards).max()) <= PASSES
    return verdict.distance


@pytest.mark.parametrize("norm", list(HUGE))
def test_no_image_takes_more_than_its_passes(norm: Norm, passes: int = 101) -> None:
    attack = Nearest(passes=passes)
    assert passes - 10 <= sum(attack.cost(10, norm)) <= passes
    x, y = load_data("mnist", n=2, source="bundled")
    verdict = evaluate(load_model("zoo:mnist/none"), x, y, attack, ThreatModel(norm, HUGE[norm]))
    spent = verdict.forwards + verdict.backwards
    assert passes - 20 <= int(spent.max()) <= passes


def test_each_norm_has_the_members_that_the_benchmark_found_best() -> None:
    attack = Nearest()
    thrice = [SigmaZero(steps=332, step_size=size, sigma=sigma) for size, sigma in SPARSE.items()]
    assert [*attack.members(Norm.L0).values()] == thrice
    assert attack.members(Norm.L1) == {"pdpgd": PDPGD(steps=998, polish=0.4)}
    assert attack.members(Norm.L2) == {"fab": FAB(steps=49, targets=3, restarts=2), "fmn": FMN(steps=554)}
    assert attack.members(Norm.LINF) == {"fab": FAB(steps=79, targets=3, restarts=2), "fmn": FMN(steps=284)}
    with pytest.raises(ConfigError, match="passes is 99: at least 100"):
        Nearest(passes=99)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "nearer"), [(Norm.L2, 0.9), (Norm.LINF, 0.99)])
def test_it_comes_nearer_than_its_members_alone(norm: Norm, nearer: float) -> None:
    ours = distances(Nearest(passes=PASSES), norm).mean()
    assert ours < nearer * distances(FAB(steps=PASSES // 12 - 1), norm).mean()
    assert ours < nearer * distances(FMN(steps=PASSES // 2 - 2), norm).mean()
    assert distances(Apart(passes=PASSES), norm).mean() > 1.1 * ours


def test_the_ball_is_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [distances(Nearest(passes=100), Norm.L2, 2, eps) for eps in (0.5, 28.0)]
    assert torch.equal(*found)
    monkeypatch.setattr(nearest, "FAR", {})  # the twin: FAB's far starts end with the ball
    assert not torch.equal(distances(Nearest(passes=100), Norm.L2, 2, 0.5), found[0])
