"""What strangers' cases taught: each was missed or accused once, and the check that was changed says so no more."""

from __future__ import annotations

import functools

import pytest
from torch import Tensor

from robustbench_local import load_data
from robustbench_local.audit.check import Check
from robustbench_local.audit.consistency import recognised
from robustbench_local.audit.convergence import lucky
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Status
from robustbench_local.audit.gradients import finite_differences, usable
from robustbench_local.audit.setup import evaluation_mode, logit_scale, logits
from robustbench_local.audit.subject import Subject
from robustbench_local.audit.training import leaking, rejection
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.threat import ThreatModel
from tests.helpers.audit_cases import honest, outputs
from tests.helpers.audit_cases.case import Case
from tests.helpers.audit_cases.strangers import later_deployments, later_networks, models, networks

EFFORT = Effort(steps=10, process=False)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_data("mnist", n=32, source="bundled")


def status(check: Check, case: Case, images: tuple[Tensor, Tensor]) -> Status:
    x, y = images[0] if case.x is None else case.x, images[1] if case.y is None else case.y
    with as_deployed(case.model):
        return check(
            Subject(case.model, x, y, ThreatModel.parse(case.threat), classes=case.classes, effort=EFFORT)
        ).status


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("the test set in its index", recognised),
        ("a mark that tells the class", leaking),
        ("a detector of dirty frames", usable),
    ],
)
def test_a_liar_is_named(name: str, check: Check, images: tuple[Tensor, Tensor]) -> None:
    assert status(check, models.LIARS[name].make(*images), images) > Status.SOUND


@functools.cache
def made(name: str) -> Case:
    """Trained once."""
    cases = networks.HONEST | later_networks.HONEST | later_deployments.HONEST
    return cases[name](*load_data("mnist", n=32, source="bundled"))


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("vote of five views with a surrogate", logits),
        ("vote of five views with a surrogate", finite_differences),
        ("two logits more than classes", finite_differences),
        ("two logits more than classes", rejection),
        ("median of nine pixels by sorting", finite_differences),
        ("image rolled by a random offset", lucky),
        ("naive bayes of black and white pixels", logit_scale),
        ("an exported program", evaluation_mode),
        ("a thousand classes of one image each", recognised),
        ("one hidden layer", recognised),
        ("one hidden layer", leaking),
    ],
)
def test_an_honest_network_is_sound(name: str, check: Check, images: tuple[Tensor, Tensor]) -> None:
    assert status(check, made(name), images) <= Status.SOUND


@pytest.mark.parametrize(("loss", "sound"), [("margin", True), ("ce", False)])
def test_large_margins_speak_against_what_needs_cross_entropy_alone(
    loss: str, sound: bool, images: tuple[Tensor, Tensor]
) -> None:
    case = outputs.LIARS["logits x 1000"].make(*images)
    attack = find_attack("pgd", {"steps": 10, "loss": loss})
    with as_deployed(case.model):
        subject = Subject(case.model, *images, ThreatModel.parse("linf:0.1"), attack=attack, effort=EFFORT)
        found = [check(subject).status for check in (logit_scale, usable)]
    assert all((status is Status.SOUND) is sound for status in found), found


def test_a_rejection_with_a_gradient_is_sound(images: tuple[Tensor, Tensor]) -> None:
    assert status(usable, honest.HONEST["detector, declared"](*images), images) is Status.SOUND
