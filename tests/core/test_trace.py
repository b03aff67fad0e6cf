"""What is kept of a search on its way: the best objective of each image after so many steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import robustbench_local as rbl
from robustbench_local.config.plugins import find_attack
from robustbench_local.core import trace
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel

THREATS = {"apgd": "linf:0.1", "one_pixel": "l0:1"}
SETTINGS: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 30, "loss": "ce"},
    "one_pixel": {"population": 8, "generations": 30},
}


@pytest.fixture(scope="module")
def setting() -> tuple[Any, Tensor, Tensor]:
    x, y = rbl.load_data("mnist", n=24, source="bundled")
    return rbl.load_model("zoo:mnist/adversarial_training").eval(), x, y


def searched(setting: tuple[Any, Tensor, Tensor], attack: Attack, threat: str, rows: slice = slice(None)) -> Oracle:
    model, x, y = setting
    ball, draws = ThreatModel.parse(threat), Draws(0, torch.arange(len(x)))[rows]
    oracle = Oracle(model, x[rows], y[rows], ball, attack.access, draws.stream("oracle"))
    attack(oracle, x[rows].clone(), y[rows], ball, draws.stream("attack"))
    return oracle


@pytest.mark.parametrize("name", THREATS)
def test_the_best_never_gets_worse_and_a_broken_image_keeps_its_last(name: str, setting: Any) -> None:
    oracle = searched(setting, find_attack(name, SETTINGS[name]), THREATS[name])
    found = trace.of(oracle.notes)
    assert list(found) == sorted(found)
    assert (min(found), max(found), len(found)) == (1, 30, trace.POINTS)
    values = torch.stack(list(found.values()))
    assert values.isfinite().all()
    assert (values.diff(dim=0) >= 0).all()
    assert (values[-1] > values[0]).any()
    assert trace.others(oracle.notes) == {}


def test_it_is_the_loss_that_was_climbed(setting: Any) -> None:
    """After one step APGD has asked about its start alone, and no loss that it saw is above the best."""
    model, x, y = setting
    attack = find_attack("apgd", {"steps": 6, "loss": "ce"})
    seen: list[Tensor] = []

    class Watched(Oracle):
        def grad(self, x: Tensor, y: Tensor, loss: Any) -> Any:
            answer = super().grad(x, y, loss)
            seen.append(answer[0])
            return answer

    ball, draws = ThreatModel.parse("linf:0.02"), Draws(0, torch.arange(len(x)))
    oracle = Watched(model, x, y, ball, attack.access, draws.stream("oracle"))
    attack(oracle, x.clone(), y, ball, draws.stream("attack"))
    robust = ~oracle.broken
    found = trace.of(oracle.notes)
    assert all(len(each) == len(x) for each in seen[:1])
    torch.testing.assert_close(found[1], seen[0].to(found[1]))
    whole = [each for each in seen if len(each) == int(robust.sum())]
    torch.testing.assert_close(found[6][robust], torch.stack([seen[0][robust], *whole]).amax(0))


@pytest.mark.parametrize("name", THREATS)
def test_it_depends_on_no_batch_and_costs_no_pass(name: str, setting: Any) -> None:
    attack = find_attack(name, SETTINGS[name])
    whole = searched(setting, attack, THREATS[name])
    parts = [searched(setting, attack, THREATS[name], slice(k, k + 8)) for k in (0, 8, 16)]
    for after, values in trace.of(whole.notes).items():
        torch.testing.assert_close(values, torch.cat([trace.of(part.notes)[after] for part in parts]))
    rounds = attack.cost(10)
    assert whole.forwards.max() <= rounds[0] + 1
    assert whole.backwards.max() <= rounds[1]


def test_only_the_first_round_and_the_first_of_a_suite_are_told(setting: Any) -> None:
    one = searched(setting, find_attack("apgd", {"steps": 8, "loss": "ce"}), "linf:0.1")
    twice = searched(setting, find_attack("apgd", {"steps": 8, "loss": "ce", "restarts": 2}), "linf:0.1")
    for after, values in trace.of(one.notes).items():
        torch.testing.assert_close(values, trace.of(twice.notes)[after])
    before = trace.of(one.notes)
    second = trace.Trace(one, range(8))
    second.keep(0, torch.arange(len(one)), {"best_loss": torch.full((len(one),), 1e9)})
    second.note()
    assert all(torch.equal(values, before[after]) for after, values in trace.of(one.notes).items())


def test_what_climbs_nothing_or_takes_one_step_has_none(setting: Any) -> None:
    assert trace.of(searched(setting, find_attack("pgd", {"steps": 5}), "linf:0.1").notes) == {}
    assert trace.of(searched(setting, find_attack("apgd", {"steps": 1}), "linf:0.1").notes) == {}


def test_a_row_keeps_quartiles_of_those_that_are_robust_and_no_arrays(setting: Any, tmp_path: Any) -> None:
    rows = rbl.run_grid(
        "mnist_pgd",
        n=24,
        source="bundled",
        results=str(tmp_path),
        threats=["linf:0.15"],
        models=["mnist_small"],
        defenses=["none", "adversarial_training"],
        attacks=[{"apgd": {"steps": 12}}],
    )
    kept = {row["definition"]["defense"]: row["results"] for row in rows}
    found = kept["adversarial_training"]["trace"]
    assert found["images"] == round(24 * kept["adversarial_training"]["robust_accuracy"])
    assert found["steps"] == list(range(1, 13))
    assert all(a <= b <= c for a, b, c in zip(found["low"], found["median"], found["high"], strict=True))
    assert found["median"] == sorted(found["median"])
    assert all(not name.startswith("objective") for row in kept.values() for name in row["notes"])
    assert not any("objective" in name for row in rows for name in row["arrays"])
    if kept["none"]["robust_accuracy"] == 0:
        assert kept["none"]["trace"] is None
