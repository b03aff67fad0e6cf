"""Every attack on the pretended device: the CPU's verdicts, and no more waits of the host per step than there were."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.attack import State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.judge import Judge
from tests.helpers.pretended_device import OnDevice
from tests.helpers.short_attacks import LENGTHS, SHORT, TINY, attack, norms, own_attacks, threat
from tests.helpers.synchronisations import per_step, verdicts

BUDGETS: dict[str, float] = json.loads((Path(__file__).parent / "synchronisations.json").read_text(encoding="utf-8"))
CASES = [(name, norm) for name in SHORT for norm in norms(name)]
LOOPS = [(name, norm) for name, norm in CASES if LENGTHS[name]]
OF_EACH_KIND = {"fab", "jsma", "one_pixel", "pgd", "spatial", "square", "universal"}
QUICK = {("pgd", "linf"), ("square", "linf")}
SETTINGS = {
    "random model": ("random", Judge(eot=2, draws=3)),
    "targets": ("deterministic", Judge(targets="least_likely")),
    "budget": ("deterministic", Judge(budget=12)),
    "last iterate": ("deterministic", Judge(count="last")),
    "small batches": ("deterministic", Judge(batch_size=7)),
    "fast": ("deterministic", Judge(precision="fast")),
    "under noise": ("deterministic", Judge(attack_under="gaussian_noise:2")),
}


def slow_but(quick: set[tuple[str, str]], cases: list[tuple[str, str]]) -> list[object]:
    return [pytest.param(*case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]


def assert_alike(host: Verdict, there: Verdict) -> None:
    assert isinstance(there.robust, OnDevice) and isinstance(there.x_adv, OnDevice)
    for name in ("clean", "robust", "robust_8bit", "forwards", "backwards"):
        assert torch.equal(getattr(there, name).cpu(), getattr(host, name)), name
    assert torch.allclose(there.x_adv.cpu(), host.x_adv, rtol=0, atol=1e-5)
    assert there.flags == host.flags and there.robust_accuracy == host.robust_accuracy


def test_every_attack_is_tried() -> None:
    assert {*own_attacks()} - {*SHORT} == set() and len(SHORT) > 25


@pytest.mark.parametrize(("name", "norm"), slow_but({(name, norms(name)[0]) for name in OF_EACH_KIND}, CASES))
def test_verdicts_are_the_cpus(name: str, norm: str) -> None:
    assert_alike(*verdicts(Judge(), attack(name), threat(name, norm), "deterministic"))


@pytest.mark.parametrize(
    "setting",
    [pytest.param(name, marks=[] if name in ("random model", "budget") else pytest.mark.slow) for name in SETTINGS],
)
def test_verdicts_are_the_cpus_however_they_are_reached(setting: str) -> None:
    kind, judge = SETTINGS[setting]
    assert_alike(*verdicts(judge, attack("pgd"), threat("pgd", "linf"), kind))


@pytest.mark.parametrize(("name", "norm"), slow_but(QUICK, LOOPS))
def test_a_step_makes_the_host_wait_no_more_often_than_it_did(name: str, norm: str) -> None:
    budget, found = BUDGETS[f"{name} {norm}"], per_step(partial(attack, name), ThreatModel.parse(TINY[norm]))
    assert found <= budget, f"{name} {norm}: {found} waits per step, {budget} in tests/devices/synchronisations.json"
    assert found >= 0.9 * budget - 0.25, f"{name} {norm}: {found} waits per step: lower its budget of {budget}"


def test_every_loop_has_a_budget() -> None:
    assert {*BUDGETS} == {f"{name} {norm}" for name, norm in LOOPS}


class Curious(PGD):
    """Asks for a number at every step."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        float(state["x_adv"].sum())
        return super().step(state, oracle, x, y, threat, draws, i)


class Forgetful(PGD):
    """Makes a tensor where the images are not."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        return super().step(state, oracle, x + torch.zeros(x.shape), y, threat, draws, i)


def test_careless_attacks_are_caught() -> None:
    tiny = ThreatModel.parse(TINY["linf"])
    assert per_step(Curious, tiny) > per_step(PGD, tiny) + 0.5
    with pytest.raises(RuntimeError, match="to be on pretended"):
        verdicts(Judge(), Forgetful(steps=2), tiny, "deterministic")
