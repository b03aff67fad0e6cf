"""Models that jump: suspicious where no surrogate is declared, sound where gradients tell the way all the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from robustbench_local import load_data
from robustbench_local.audit.check import Check
from robustbench_local.audit.consistency import recognised
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.gradients import finite_differences
from robustbench_local.audit.setup import logit_scale, logits, nan_and_ties
from robustbench_local.audit.statistics import at_least, by_share
from robustbench_local.audit.subject import Subject
from robustbench_local.audit.training import leaking, rejection
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.threat import ThreatModel
from robustbench_local.defenses.multi_jpeg import Vote
from robustbench_local.models.wrap import wrap
from tests.helpers.audit_cases import honest, jumping
from tests.helpers.audit_cases.case import Case, Make, Wrapped, zoo

Images = npt.NDArray[np.float32]
QUICK = Effort(steps=10, few=24, random=24, eot=3)


def asked(check: Check, case: Case) -> Finding:
    x, y = load_data("mnist", n=24, source="bundled")
    with as_deployed(case.model):
        return check(Subject(case.model, x, y, ThreatModel.parse("linf:0.3"), effort=QUICK, classes=case.classes))


def made(make: Make) -> Case:
    return make(*load_data("mnist", n=24, source="bundled"))


@pytest.mark.parametrize("name", jumping.LIARS)
def test_what_jumps_at_every_scale_is_suspicious(name: str) -> None:
    finding = asked(finite_differences, made(jumping.LIARS[name].make))
    assert finding.status is Status.SUSPICIOUS and "no surrogate is declared" in finding.evidence


@pytest.mark.parametrize("name", jumping.HONEST)
def test_what_only_rounds_is_sound(name: str) -> None:
    for check in (finite_differences, leaking, rejection, nan_and_ties):
        finding = asked(check, made(jumping.HONEST[name]))
        assert finding.status <= Status.SOUND, finding


@pytest.mark.slow
def test_votes_may_jump_where_they_declare_their_gradients() -> None:
    case = made(honest.smoothed)
    for check in (finite_differences, logit_scale, logits):
        assert asked(check, case).status <= Status.SOUND
    silent = made(honest.smoothed)
    silent.model.surrogate_gradients = False  # type: ignore[assignment]
    assert asked(finite_differences, silent).status is Status.SUSPICIOUS
    assert Vote.surrogate_gradients


class Squashed(Wrapped):
    """Probabilities, a hundred times as large, and lower."""

    lower = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return 100 * super().forward(x).softmax(1) - self.lower


def test_probabilities_are_known_at_any_scale() -> None:
    percent = asked(logits, Case(Squashed(zoo("none"))))
    assert percent.status is Status.BROKEN and "100 times as large" in percent.evidence
    lower = Squashed(zoo("none"))
    lower.lower = 30.0
    assert asked(logit_scale, Case(lower)).status is Status.BROKEN
    assert asked(logit_scale, Case(zoo("label_smoothing"))).status is Status.SOUND


def test_a_vote_may_tie_and_tell_black_from_nearly_black() -> None:
    def votes(x: Images) -> Images:
        bright = (x.reshape(len(x), -1) > 0.5 / 255).sum(1) // 40
        found: Images = np.eye(10, dtype=np.float32)[bright.clip(max=9)] + np.float32(0.1)
        return found

    forest = Case(wrap(votes, access="scores", classes=10))
    for check in (nan_and_ties, recognised, logits):
        assert asked(check, forest).status <= Status.SOUND


def test_one_image_of_a_few_is_no_share() -> None:
    assert at_least(0, 24) == 0
    assert at_least(1, 24) == pytest.approx(1 - 0.975 ** (1 / 24))  # the closed form of one in n
    assert at_least(24, 24) == pytest.approx(0.025 ** (1 / 24))  # and of all
    faults = torch.zeros(32, dtype=torch.bool)
    for count, status in ((1, Status.SOUND), (2, Status.SUSPICIOUS), (17, Status.BROKEN)):
        faults[:count] = True
        assert by_share(faults, "at fault")[0] is status
