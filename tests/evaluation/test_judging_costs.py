"""What a verdict asks the model beside the attack: no question twice whose answer is known."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.corruptions.lighting import Brightness
from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.judge import DRAWS, Judge

COUNT = 40
IMAGES = open_data("mnist", n=COUNT, source="bundled", sample="stratified")


class Noisy(Defended):
    """A linear network behind noise, which counts the images it is asked about."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.weights = nn.Parameter(torch.sin(torch.arange(7840.0)).view(784, 10))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        self.asked += len(x)
        logits: Tensor = (x + 0.2 * draws.normal(*x.shape[1:])).flatten(1) @ self.weights
        return logits


def judged(
    judge: Judge, attack: Attack, known: AnswerCache | None = None, model: Noisy | None = None
) -> tuple[Verdict, int]:
    """The verdict and how many images the model was asked about."""
    model = model or Noisy()
    model.asked = 0
    threat = ThreatModel.parse("none" if isinstance(attack, Brightness) else "linf:0.1")
    verdict = judge(model, IMAGES, attack, threat, known=known)
    return verdict, model.asked


def same(one: Verdict, other: Verdict) -> bool:
    """Whether they agree in all that is measured per image."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Verdict)]
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))


def test_verdicts_on_one_model_share_its_answers_on_clean_images() -> None:
    shared, model = AnswerCache(), Noisy()
    for attack in (FGSM(), Brightness(), FGSM(loss="margin")):
        alone, asked = judged(Judge(eot=2), attack)
        together, fewer = judged(Judge(eot=2), attack, shared, model)
        assert same(alone, together)
        first = isinstance(attack, FGSM) and attack.loss == "ce"
        assert asked - fewer == (0 if first else (DRAWS + 1) * COUNT)  # and the check that the draws decide all


def test_fewer_draws_are_the_first_of_those_that_are_known() -> None:
    shared, model = AnswerCache(), Noisy()
    judged(Judge(eot=2), FGSM(), shared, model)
    alone, asked = judged(Judge(eot=2, draws=9), FGSM())
    together, fewer = judged(Judge(eot=2, draws=9), FGSM(), shared, model)
    assert asked - fewer == (9 + 1) * COUNT
    assert same(alone, together)


@pytest.mark.parametrize("judge", [Judge(eot=2, seed=1), Judge(eot=2, attack_under="fog:3")])
def test_other_settings_share_no_answers_on_clean_images(judge: Judge) -> None:
    shared, model = AnswerCache(), Noisy()
    judged(Judge(eot=2), FGSM(), shared, model)
    alone, asked = judged(judge, FGSM())
    together, fewer = judged(judge, FGSM(), shared, model)
    assert asked == fewer
    assert same(alone, together)


def test_other_models_share_nothing() -> None:
    shared = AnswerCache()
    _, asked = judged(Judge(eot=2), FGSM(), shared)
    _, again = judged(Judge(eot=2), FGSM(), shared)
    assert asked == again


class Tiring(nn.Module):
    """Answers always the same at first, and by chance, or only once more differently, when it was asked often."""

    def __init__(self, random: bool = True) -> None:
        super().__init__()
        self.asked, self.random = 0, random

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        logits = x.flatten(1)[:, 300:310]
        if self.asked < 9:
            return logits
        return logits + torch.rand(10) if self.random else logits + torch.arange(10)


def test_a_model_that_turns_random_while_it_is_attacked_is_named() -> None:
    shared, model, threat = AnswerCache(), Tiring(), ThreatModel.parse("linf:0.1")
    flags = [Judge(eot=1, draws=2)(model, IMAGES, FGSM(), threat, known=shared).flags for _ in "ab"]
    assert flags == [("changed",), ("undeclared_randomness",)]


def test_a_model_that_answers_otherwise_after_the_attack_is_named() -> None:
    model, threat = Tiring(random=False), ThreatModel.parse("linf:0.1")
    flags = [Judge(eot=1, draws=2)(model, IMAGES, FGSM(), threat).flags for _ in "ab"]
    assert flags == [("changed",), ()]  # the second time it was as tired before as after


def test_other_images_share_nothing() -> None:
    shared, model = AnswerCache(), Noisy()
    judged(Judge(), Brightness(), shared, model)
    others = open_data("mnist", ids=range(COUNT, 2 * COUNT), source="bundled")
    verdict = Judge()(model, others, Brightness(), ThreatModel.parse("none"), known=shared)
    assert same(verdict, Judge()(Noisy(), others, Brightness(), ThreatModel.parse("none")))


def test_what_has_256_levels_already_is_not_judged_again_in_256_levels() -> None:
    verdict, asked = judged(Judge(draws=1), Brightness())
    assert torch.equal(verdict.robust, verdict.robust_8bit)
    _, more = judged(Judge(draws=11), Brightness())
    assert more - asked == 10 * 2 * COUNT  # clean and corrupted
    _, asked = judged(Judge(eot=1, draws=1), FGSM())
    _, more = judged(Judge(eot=1, draws=11), FGSM())
    assert more - asked == 10 * 3 * COUNT
