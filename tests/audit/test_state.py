"""What a model keeps between questions, or looks at beside the image, is found by a process that never saw it."""

from __future__ import annotations

import importlib
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local import load_data
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.process import Answers, Untouched
from robustbench_local.audit.rounding import moved, rounding
from robustbench_local.audit.setup import randomness
from robustbench_local.audit.state import fresh_process
from robustbench_local.audit.subject import Subject
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.threat import ThreatModel
from robustbench_local.models.wrap import wrap
from tests.helpers.audit_cases import remembering
from tests.helpers.audit_cases.case import Case, zoo

THREAT = ThreatModel.parse("linf:0.3")
QUICK = Effort(steps=5, few=12, random=12)
IDS = torch.arange(3)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_data("mnist", n=20, source="bundled")


def found(case: Case, images: tuple[Tensor, Tensor]) -> dict[str, Finding]:
    with as_deployed(case.model):
        subject = Subject(case.model, *images, THREAT, effort=QUICK)
        return {each.name: each(subject) for each in (randomness, fresh_process)}


def asked(model: nn.Module, *batches: Tensor) -> Answers:
    return Untouched(model.eval()).ask(batches, IDS, seed=5)


SLOW = ("rough grey levels in a global", "near-duplicates in a file")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in remembering.LIARS]
)
def test_a_liar_is_named(name: str, images: tuple[Tensor, Tensor]) -> None:
    liar = remembering.LIARS[name]
    findings = found(liar.make(*images), images)
    assert any(findings[cause].status > Status.SOUND for cause in liar.causes), findings


@pytest.mark.parametrize("name", remembering.HONEST)
def test_an_honest_model_is_sound(name: str, images: tuple[Tensor, Tensor]) -> None:
    findings = found(remembering.HONEST[name](*images), images)
    assert {finding.status for finding in findings.values()} == {Status.SOUND}, findings


def test_probabilities_are_compared_as_they_are_deployed(images: tuple[Tensor, Tensor]) -> None:
    findings = found(Case(nn.Sequential(zoo("none"), nn.Softmax(1))), images)
    assert findings["a fresh process"].status is Status.SOUND


class Calling:
    """Scores of rows of the image, and a call that nobody answers."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        with socket.socket() as line:
            line.connect_ex(("127.0.0.1", 9))
        return np.ascontiguousarray(x.reshape(len(x), -1)[:, 300:310])


class Told(nn.Module):
    """The same with gradients."""

    def forward(self, x: Tensor) -> Tensor:
        Calling()(x.detach().numpy())
        return x.flatten(1)[:, 300:310]


def test_a_black_box_may_ask_others_and_no_one_else(images: tuple[Tensor, Tensor]) -> None:
    box = wrap(Calling(), access="scores", classes=10)
    assert found(Case(box), images)["a fresh process"].status is Status.SOUND
    finding = found(Case(Told()), images)["a fresh process"]
    assert finding.status is Status.SUSPICIOUS and "127.0.0.1" in finding.evidence


# the process


def test_it_gives_the_same_draws() -> None:
    model, x = zoo("noise_fusion"), torch.rand(3, 1, 28, 28)
    answers = asked(model, x, 1 - x)
    with torch.no_grad():
        here = model(x, Draws(5, IDS).stream("audit:ask"))
    assert len(answers.logits) == 2 and torch.allclose(answers.logits[0], here, atol=1e-5)
    assert all(torch.allclose(later, here, atol=1e-5) for later in answers.later)


class World(nn.Module):
    """Answers with what the process knows of the world: clocks, in hours, and the environment."""

    def forward(self, x: Tensor) -> Tensor:
        importlib.import_module("pandas")  # its C code looks at the class of dates as it is imported
        dates = [datetime.now().timestamp(), datetime.now(UTC).timestamp(), datetime.today().timestamp()]
        clocks = [time.time(), time.time_ns() / 1e9, time.mktime(time.localtime()), time.monotonic_ns() / 1e9]
        known = torch.tensor([*dates, *clocks, 3600 * float(os.environ.get("ASKED", "0"))], dtype=torch.float64)
        return (known / 3600).expand(len(x), -1)


def test_clocks_go_on_by_hours_days_and_years_and_the_environment_is_that_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ASKED", raising=False)
    kept = Untouched(World())
    monkeypatch.setenv("ASKED", "7")
    answers = kept.ask([torch.rand(3, 1, 4, 4)], IDS, 0)
    first = answers.logits[0][0]
    assert first[-1] == 0
    ahead = torch.stack([later[0] - first for later in answers.later])
    expected = torch.tensor([6, 12, 18, 72, 2424, 9600], dtype=torch.float64)
    torch.testing.assert_close(ahead[:, :-1], expected[:, None].expand(-1, 7), atol=0.1, rtol=0)


def test_a_class_within_a_function_is_taken_along() -> None:
    class Within(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2]

    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(asked(Within(), x).logits[0], x.flatten(1)[:, :2])


def test_what_cannot_be_pickled_is_not_taken_there() -> None:
    model = World()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="pickle"):
        asked(model, torch.rand(3, 1, 4, 4))


def test_a_model_that_dies_there_says_of_what() -> None:
    with pytest.raises(ModelError, match="shape"):
        asked(nn.Linear(3, 2), torch.rand(3, 1, 4, 4))


class Reads(nn.Module):
    """Two pixels, times what a file holds."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] * float(self.file.read_text())


def test_an_old_file_may_be_read_and_a_young_one_not(tmp_path: Path) -> None:
    file = tmp_path / "scale.txt"
    file.write_text("2.0")
    os.utime(file, (1e9, 1e9))
    x = torch.rand(3, 1, 4, 4)
    assert asked(Reads(file), x).files == ()
    os.utime(file, (time.time() + 60, time.time() + 60))  # as if written while the audit ran
    assert asked(Reads(file), x).files == (str(file),)


# rounding


def test_half_precision_rounds_more() -> None:
    x = torch.rand(5, 10)
    assert rounding(nn.Linear(2, 2), x) == 1e-3
    assert rounding(nn.Linear(2, 2).bfloat16(), x) == 4 * 2**-7
    assert rounding(nn.Identity(), x.half().float()) == 4 * 2**-10
    assert not moved(x, x + 5e-4 * (x.max() - x.min())).any() and moved(x, x + 0.1).all()
    lost = x.where(x > 0.2, torch.nan)
    assert not moved(lost, lost).any() and moved(x, lost).any()
