"""The audit of one model: every liar is named by a check that knows its fault, and honest models by none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_local import load_data
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.audit.card import Card
from robustbench_local.audit.check import check
from robustbench_local.audit.checklist import CHECKS, audit_model
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Result, Status, sound
from robustbench_local.audit.orderings import stronger
from robustbench_local.audit.statistics import ALPHA, by_share, correlation, paired, weaker
from robustbench_local.audit.subject import Subject
from robustbench_local.cli.main import main
from robustbench_local.core.errors import ConfigError, DataError, ModelError
from robustbench_local.core.model_state import as_deployed
from robustbench_local.core.threat import ThreatModel
from tests.helpers.audit_cases import asking, attacks, gradients, honest, named, outputs
from tests.helpers.audit_cases.case import Case, zoo

N = 30
QUICK = Effort(steps=10, queries=60, draws=20, probed=20, walked=12, few=24, random=16, eot=3, process=False)
LIARS = outputs.LIARS | gradients.LIARS | asking.LIARS | attacks.LIARS
THREAT = ThreatModel.parse("linf:0.3")
SURROGATES = ("zoo:mnist/label_smoothing",)
BY_NAME = {each.name: each for each in CHECKS if each.of_model}
# what a sound model is asked here: all but what takes long, which the slow test and the benchmark ask
DEAR = {"steps and restarts suffice", "gradients beat what sees less", "a stronger attack"}


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_data("mnist", n=N, source="bundled")


def asked(case: Case, images: tuple[Tensor, Tensor], names: Sequence[str]) -> dict[str, Finding]:
    x, y = images
    x = x if case.x is None else case.x
    with as_deployed(case.model):
        subject = Subject(
            case.model, x, y, THREAT, attack=case.attack, effort=QUICK, surrogates=SURROGATES, classes=case.classes
        )
        for _ in range(20):  # what an attack would ask in passing, for those who count
            subject.ask(subject.x)
        if "same after the audit" in names:
            subject.pgd()
        return {name: BY_NAME[name](subject) for name in names}


@pytest.mark.filterwarnings("ignore:the model returns probabilities")
@pytest.mark.parametrize("name", [name for name in LIARS if name != "sleeps on perturbed images"])
def test_a_liar_is_named_by_a_check_that_knows_its_fault(name: str, images: tuple[Tensor, Tensor]) -> None:
    liar = LIARS[name]
    findings = asked(liar.make(*images), images, liar.causes)
    assert any(finding.status > Status.SOUND for finding in findings.values()), findings
    assert all(finding.source and finding.advice and finding.evidence for finding in findings.values())


@pytest.mark.parametrize("name", ["undefended", "bit depth with BPDA"])
def test_an_honest_model_is_sound(name: str, images: tuple[Tensor, Tensor]) -> None:
    names = [each for each in BY_NAME if each not in DEAR and each != "time"]
    findings = asked(honest.HONEST[name](*images), images, names)
    assert not [finding for finding in findings.values() if finding.status > Status.SOUND]
    assert sum(finding.status is Status.SOUND for finding in findings.values()) > 20


class Scale(nn.Module):
    """Makes no probabilities of ones and zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * x - 4


def test_few_values_are_a_fault_only_where_no_gradient_passes(images: tuple[Tensor, Tensor]) -> None:
    voting = asked(honest.HONEST["randomized smoothing"](*images), images, ["logits"])["logits"]
    assert voting.status is Status.SOUND and "through a surrogate" in voting.evidence
    labels = outputs.LIARS["one-hot output"].make(*images).model
    hard = asked(Case(nn.Sequential(labels, Scale())), images, ["logits"])["logits"]
    assert hard.status is Status.BROKEN and "no more than a label" in hard.evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", honest.HONEST)
def test_an_honest_model_is_sound_in_all(name: str, images: tuple[Tensor, Tensor]) -> None:
    case = honest.HONEST[name](*images)
    effort = replace(QUICK, queries=300, process=True)
    card = audit_model(case.model, *images, THREAT, attack=case.attack, effort=effort)
    assert card.status is Status.SOUND, card.faults


class Wise(nn.Module):
    """Two logits, the sum of the pixels against a half: nothing to object to."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-bright, bright], 1)


def halves(count: int = 30) -> tuple[Tensor, Tensor]:
    y = torch.arange(count) % 2
    noise = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return (0.2 + 0.5 * y.view(-1, 1, 1, 1) + 0.1 * noise), y


@pytest.fixture(scope="module")
def card() -> Card:
    return audit_model(Wise(), *halves(), "linf:0.1", effort=replace(QUICK, process=True), train=halves(20))


def test_the_card_has_every_check_in_order_and_its_numbers(card: Card) -> None:
    assert [finding.check for finding in card.findings] == [*BY_NAME]
    assert len({each.name for each in CHECKS}) == len(CHECKS)
    assert card.status is Status.SOUND and not card.faults
    assert (card.clean, card.robust, card.images) == (1.0, 1.0, 30)
    assert card["a fresh process"].status is Status.SOUND
    assert card["no robust overfitting"].status is Status.SOUND
    plain = json.loads(json.dumps(card.as_dict()))
    assert plain["status"] == "sound" and len(plain["findings"]) == len(BY_NAME)


def test_the_robust_accuracy_of_a_card_is_the_least_of_all_attacks(images: tuple[Tensor, Tensor]) -> None:
    """Quantised: its own gradients find nothing, Square everything that it has time for."""
    with as_deployed(model := gradients.LIARS["gradient shattering by quantisation"].make(*images).model):
        subject = Subject(model, *images, THREAT, effort=QUICK)
        led, square = subject.pgd(), subject.run("square", steps=QUICK.queries)
    assert led is not None and square is not None
    assert square.robust_accuracy < led.robust_accuracy - 0.3
    assert torch.equal(subject.worst, led.robust & square.robust)


def test_an_evaluation_is_not_accused_of_what_it_breaks_itself(images: tuple[Tensor, Tensor]) -> None:
    with as_deployed(model := gradients.LIARS["gradient shattering by quantisation"].make(*images).model):
        found = [
            stronger(Subject(model, *images, THREAT, effort=QUICK, attack=attack))
            for attack in (Square(steps=500), None)
        ]
    assert [each.status for each in found] == [Status.SOUND, Status.BROKEN], found


def test_a_model_that_dies_in_a_check_stops_no_other() -> None:
    class Fragile(Wise):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                raise OSError("the disk is gone")
            return super().forward(x)

    card = audit_model(Fragile(), *halves(), "linf:0.1", effort=QUICK)
    assert card["grad mode"].status is Status.SUSPICIOUS and "the disk is gone" in card["grad mode"].evidence
    assert card["batches"].status is Status.SOUND


def test_a_model_that_dies_of_a_clean_image_is_no_model_to_audit() -> None:
    class Blinded(Wise):
        def forward(self, x: Tensor) -> Tensor:
            if bool((x.flatten(1).mean(1) > 0.9).any()):
                raise OSError("too bright")
            return super().forward(x)

    x, y = halves(100)
    x[91] = 0.99  # not among the first that are asked about
    with pytest.raises(ModelError, match="images 0 to 99, all of them clean: OSError: too bright"):
        audit_model(Blinded(), x, y, "linf:0.1", effort=QUICK)


def test_what_is_asked_wrongly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nn\.Module"):
        audit_model(lambda x: x, *halves())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="spans"):
        audit_model(Wise(), 255 * halves()[0], halves()[1])


def test_an_audit_leaves_the_model_and_the_random_state_as_they_were() -> None:
    model = zoo("none").train()
    state = torch.random.get_rng_state()
    effort = replace(QUICK, few=4, queries=5, steps=2)
    audit_model(model, *load_data("mnist", n=8, source="bundled"), THREAT, effort=effort)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


# statistics


def test_nine_against_none_is_the_least_that_an_ordering_needs() -> None:
    assert 0.5**9 < ALPHA < 0.5**8
    first = torch.ones(1000, dtype=torch.bool)
    for broken, status in ((8, Status.SOUND), (9, Status.SUSPICIOUS), (501, Status.BROKEN)):
        second = first.clone()
        second[:broken] = False
        assert weaker(first, second, "")[0] is status
        assert weaker(second, first, "")[0] is Status.SOUND  # the other way round there is nothing to say
    assert paired(first, first).p == 1.0


def test_what_costs_two_points_or_less_is_not_called_broken() -> None:
    for left, broken, status in ((10, 9, Status.SUSPICIOUS), (25, 20, Status.SUSPICIOUS), (25, 21, Status.BROKEN)):
        first, second = torch.zeros(1000, dtype=torch.bool), torch.zeros(1000, dtype=torch.bool)
        first[:left], second[broken:left] = True, True
        assert weaker(first, second, "")[0] is status


def test_of_a_large_set_half_a_point_is_allowed_however_sure() -> None:
    first, second = torch.ones(10_000, dtype=torch.bool), torch.ones(10_000, dtype=torch.bool)
    second[:49] = False
    assert paired(first, second).p < 1e-9 and weaker(first, second, "")[0] is Status.SOUND


def test_shares() -> None:
    faults = torch.zeros(60, dtype=torch.bool)
    assert by_share(faults, "")[0] is Status.SOUND
    faults[:1] = True
    assert by_share(faults, "")[0] is Status.SOUND  # one of 60 may be half a point of all
    faults[:4] = True
    assert by_share(faults, "")[0] is Status.SUSPICIOUS
    faults[:31] = True
    assert by_share(faults, "")[0] is Status.BROKEN
    assert by_share(faults[:0], "")[0] is Status.SOUND


def test_correlation() -> None:
    a = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(a, 3 * a + 1) == pytest.approx(1) and correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, torch.ones(3)) == 0


def test_a_check_is_made_of_a_function() -> None:
    @check("fine", source="a paper", advice="nothing")
    def fine(subject: Subject) -> Result:
        return sound("all is well", share=0.0)

    finding = fine(None)  # type: ignore[arg-type]
    assert finding == Finding("fine", Status.SOUND, "all is well", {"share": 0.0}, "a paper", "nothing")


# the command


@pytest.mark.parametrize(("model", "code"), [("named:quiet", 0), ("named:probable", 3), ("named:loud", 4)])
def test_the_command_prints_a_card_and_tells_by_its_exit_code(
    model: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(named.__file__).parent)
    out = tmp_path / "card.json"
    keys = ["data=mnist", "threat=linf:0.1", "n=10", "source=bundled", "effort=0.05", f"out={out}"]
    assert main(["audit", model, *keys]) == code
    printed = capsys.readouterr().out
    verdict = {0: "sound", 3: "suspicious", 4: "broken"}[code]
    assert printed.startswith(verdict.upper())
    assert json.loads(out.read_text())["status"] == verdict
    if code == 4:
        assert "do: divide the logits" in printed and "see: Carlini and Wagner 2017" in printed


def test_the_command_knows_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "zoo:mnist/none", "data=mnist", "threat=linf:0.1", "steps=3"]) == 2
    assert "steps" in capsys.readouterr().err
    assert main(["audit", "zoo:mnist/none", "threat=linf:0.1"]) == 2
    assert "data" in capsys.readouterr().err


def test_an_attack_of_the_users_is_audited_beside_the_model() -> None:
    x, y = halves()
    card = audit_model(Wise(), x, y, "linf:0.3", attack=PGD(steps=4, step_size=1e-4, random_start=False), effort=QUICK)
    assert card["the budget is used"].status is Status.BROKEN
    assert card["as strong as another"].status is Status.BROKEN
    assert card.robust < 0.5  # and the lower number is what the card says


class Narrow(nn.Module):
    """Falls where the lower half grows brighter, and has a gradient only where the upper half is left alone."""

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = x[:, :, :3], x[:, :, 3:]
        lead = torch.where((upper - 0.5).abs().amax((1, 2, 3)) < 0.05, 0.6 - lower.mean((1, 2, 3)), 1.0)
        return torch.stack([lead, 0 * lead], 1)


def test_its_gradient_attacks_start_from_the_clean_image_too() -> None:
    x, y = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.int64)
    with as_deployed(model := Narrow()):
        subject = Subject(model, x, y, THREAT, attack=None, effort=QUICK, surrogates=(), classes=2)
        assert all(run.robust.all() for run in subject._by_gradients)  # from random starts alone
        assert subject.gradients is not None and not subject.gradients.any() and not subject.worst.any()
