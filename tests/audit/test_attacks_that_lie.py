"""Attacks that write into what they are given, stop early, aim wrongly or misstate what they spend, and honest ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from robustbench_local import load_data
from robustbench_local.attacks.deepfool import DeepFool
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.hopskipjump import HopSkipJump
from robustbench_local.attacks.mim import MIM
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.audit.attacks import Planted, planted, spending
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Status
from robustbench_local.audit.subject import Subject
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model

THREAT = ThreatModel.parse("linf:0.1")


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_data("mnist", n=24, source="bundled")


@dataclass(frozen=True)
class Relabels(PGD):
    """Climbs the loss of another class, and so goes the wrong way."""

    def step(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, *rest: object) -> State:
        return super().step(state, oracle, x, (y + 1) % oracle.classes, *rest)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Lazy(MIM):
    """Says that it makes its steps, and stops after two."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        if i >= 2:
            return state
        return super().step(state, oracle, x, y, threat, draws, i)


@dataclass(frozen=True)
class Timid(PGD):
    """All its steps together reach a quarter of the way to the edge of the ball."""

    reach: ClassVar[float] = 0.25


@dataclass(frozen=True)
class Writes(PGD):
    """Overwrites what it was handed, when it has finished."""

    what: str = "y"

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        found = super().__call__(oracle, x, y, threat, draws)
        handed = {"x": x, "y": y, "ids": draws.ids, "oracle x": oracle._x, "oracle y": oracle._y}
        handed[self.what].zero_()
        return found


@dataclass(frozen=True)
class Modest(MIM):
    """States a tenth of what it spends."""

    def cost(self, *about: object) -> tuple[int, int]:
        return self.steps // 10, self.steps // 10


def subject_of(attack: Attack, images: tuple[Tensor, Tensor], threat: ThreatModel = THREAT) -> Subject:
    model = load_model("zoo:mnist/adversarial_training")
    return Subject(model, *images, threat, attack=attack, effort=Effort(queries=300, process=False))


@pytest.mark.parametrize("what", ["x", "y", "ids", "oracle x", "oracle y"])
def test_what_an_attack_overwrites_is_its_own(what: str, images: tuple[Tensor, Tensor]) -> None:
    x, y = (each.clone() for each in images)
    model, threat = load_model("zoo:mnist/none"), ThreatModel.parse("linf:0.05")
    honest, verdict = (evaluate(model, x, y, attack, threat) for attack in (PGD(steps=5), Writes(steps=5, what=what)))
    assert torch.equal(x, images[0]) and torch.equal(y, images[1])
    assert torch.equal(honest.robust, verdict.robust) and torch.equal(honest.ids, verdict.ids)
    subject = Subject(model, x, y, threat, attack=Writes(steps=5, what=what), effort=Effort(process=False))
    ids = subject.draws.ids.clone()
    assert subject.recording is not None
    assert torch.equal(y, images[1]) and torch.equal(x, images[0]) and torch.equal(subject.draws.ids, ids)


@pytest.mark.parametrize(
    "attack", [Relabels(steps=20), Lazy(steps=20), Timid(steps=20)], ids=lambda each: type(each).__name__
)
def test_what_misses_the_planted_is_found_out(attack: Attack, images: tuple[Tensor, Tensor]) -> None:
    assert planted(subject_of(attack, images)).status > Status.SOUND


HONEST = [
    PGD(steps=20),
    PGD(steps=10),
    FGSM(),
    MIM(steps=10),
    FAB(steps=10),
    DeepFool(),
    Square(steps=300),
    HopSkipJump(steps=10),
]


@pytest.mark.parametrize("norm", ["linf:0.1", "l2:1"])
@pytest.mark.parametrize("attack", HONEST, ids=repr)
def test_honest_attacks_are_accused_of_nothing(attack: Attack, norm: str, images: tuple[Tensor, Tensor]) -> None:
    threat = ThreatModel.parse(norm)
    subject = subject_of(attack, images, threat)
    for found in (planted(subject), spending(subject)):
        assert found.status <= Status.SOUND, found


@pytest.mark.parametrize("attack", [Lazy(steps=20), Modest(steps=20)], ids=lambda each: type(each).__name__)
def test_spending_that_is_not_as_stated_is_told(attack: Attack, images: tuple[Tensor, Tensor]) -> None:
    found = spending(subject_of(attack, images))
    assert found.status is Status.SUSPICIOUS and "stated" in found.evidence


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("norm", ["linf:0.1", "l2:1"])
def test_the_planted_is_there(norm: str, parts: int, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    threat = ThreatModel.parse(norm)
    model = Planted(x, y, threat, 10, parts)
    assert (model(x).argmax(1) == y).all()
    inwards = torch.where(x < 0.5, 1.0, -1.0)
    edge = threat.project(x + 2 * threat.eps * threat.steepest(inwards, x, x), x)
    assert threat.contains(edge, x).all() and (model(edge).argmax(1) != y).all()
