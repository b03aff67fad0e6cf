"""Gradients that are zero or not finite are no robustness: a verdict says so, and best goes on without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.attacks.best import Best
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.judge import Judge
from tests.helpers.small_networks import Jittered, images, network

LINF = "linf:0.3"
Map = Callable[[Tensor], Tensor]


class Fronted(nn.Module):
    """Something that is not differentiated, before or after an honest network."""

    def __init__(self, front: Map, back: Map = lambda z: z, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.front, self.back = net or rbl.load_model("zoo:mnist/none"), front, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.net(self.front(x)))


class Shared(Fronted):
    """What has a gradient is added to every logit, and moves no margin."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach()) + x.flatten(1).mean(1, keepdim=True)


def black(x: Tensor) -> Tensor:
    return (x >= 0.5).to(x)


MASKED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "black and white": lambda net: Fronted(lambda x: black(x) + 0 * x, net=net),
    "a detached sign": lambda net: Fronted(lambda x: ((x - 0.5).sign().detach() + 1) / 2 + 0 * x, net=net),
    "NaN": lambda net: Fronted(lambda x: black(x) + (0 * x).sqrt(), net=net),
    "a staircase": lambda net: Fronted(lambda x: x, lambda z: (100 * z).round() / 100 + 0 * z, net),
    "one for all logits": lambda net: Shared(black, net=net),
}
GRADED: dict[str, Mapping[str, Any]] = {
    "fgsm": {},
    "pgd": {"steps": 3, "loss": "margin"},
    "apgd": {"steps": 3, "loss": "dlr"},
    "mim": {"steps": 3},
    "cw": {"steps": 3, "searches": 2},
    "ddn": {"steps": 3},
    "deepfool": {"steps": 3},
    "fab": {"steps": 3},
    "fmn": {"steps": 3},
    "ead": {"steps": 3, "searches": 2},
    "pdpgd": {"steps": 50},
    "jsma": {},
    "sigma_zero": {"steps": 50},
    "spgd": {"steps": 5},
    "best": {"steps": 60, "climb": 2},
}
BALLS = {Norm.LINF: LINF, Norm.L2: "l2:1.5", Norm.L1: "l1:10", Norm.L0: "l0:5"}


def ball_of(attack: Attack) -> str:
    return next(text for norm, text in BALLS.items() if norm in attack.norms)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return rbl.load_data("mnist", n=16, source="bundled")


def flagged(verdict: Verdict) -> int:
    """How many images the flag counts."""
    counts = [flag.partition(":")[2] for flag in verdict.flags if flag.startswith("no_gradient")]
    return int(counts[0]) if counts else 0


@pytest.mark.parametrize("name", GRADED)
def test_every_gradient_attack_that_is_led_nowhere_says_so(name: str, digits: tuple[Tensor, Tensor]) -> None:
    attack = find_attack(name, GRADED[name])
    x, y = digits[0][:6], digits[1][:6]
    verdict = rbl.evaluate(MASKED["black and white"](rbl.load_model("zoo:mnist/none")), x, y, attack, ball_of(attack))
    assert flagged(verdict) == verdict.robust.sum() > 0
    assert not flagged(rbl.evaluate(rbl.load_model("zoo:mnist/none"), x, y, attack, ball_of(attack)))


@pytest.mark.parametrize("kind", MASKED)
def test_whatever_masks_them_best_goes_on_by_scores(kind: str) -> None:
    """It leaves about as many robust as Square does with as many queries."""
    net = network()
    data, model, best = images(net), MASKED[kind](net), Best(steps=300, climb=5)
    with torch.no_grad():
        y = model(data.x).argmax(1)
    led, found, square = (
        rbl.evaluate(model, data.x, y, attack, "linf:0.02")
        for attack in (PGD(steps=3, loss="margin"), best, Square(steps=300))
    )
    assert flagged(led) == led.robust.sum() and flagged(found) == found.robust.sum() > 0
    assert found.robust.sum() <= square.robust.sum() + 1 < led.robust.sum()
    assert found.forwards.max() <= best.cost(4)[0] + 1  # an end that rivals a tie is asked about again


@pytest.mark.slow
def test_black_and_white_digits(digits: tuple[Tensor, Tensor]) -> None:
    x, y = rbl.load_data("mnist", n=80, source="bundled")
    model = MASKED["black and white"](rbl.load_model("zoo:mnist/none"))
    pgd, best, square = (rbl.evaluate(model, x, y, name, LINF) for name in ("pgd", "best", "square"))
    assert pgd.robust_accuracy == 1 and flagged(pgd) == 80
    assert best.robust_accuracy <= square.robust_accuracy < 0.7


def test_a_saturated_softmax_has_no_gradient_and_its_margin_has_one(digits: tuple[Tensor, Tensor]) -> None:
    loud = Fronted(lambda x: x, lambda z: 1e4 * z)
    assert flagged(rbl.evaluate(loud, *digits, PGD(steps=5), LINF)) == 16
    verdict = rbl.evaluate(loud, *digits, PGD(steps=5, loss="margin"), LINF)
    assert not verdict.robust.any() and not verdict.flags


def test_one_gradient_that_leads_is_enough(digits: tuple[Tensor, Tensor]) -> None:
    """The model has gradients when it is first asked for them, and none from then on."""
    asked: list[Tensor] = []

    def front(x: Tensor) -> Tensor:
        if x.requires_grad:
            asked.append(x)
        return black(x) + 0 * x if len(asked) > 2 else x

    verdict = rbl.evaluate(Fronted(front), *digits, PGD(steps=4), "linf:0.01")
    assert verdict.robust.any() and not flagged(verdict)


def test_of_a_random_model_the_mean_gradient_is_looked_at() -> None:
    net = network()
    data, small = images(net), ThreatModel.parse("linf:0.01")
    for model, blind in ((Jittered(net), False), (Jittered(nn.Sequential(Detached(), net)), True)):
        verdict = Judge(eot=2, draws=5)(model, data, PGD(steps=2), small)
        assert flagged(verdict) == (int(verdict.robust.sum()) if blind else 0)
        assert verdict.robust.any()


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach() + 0 * x


@dataclass(frozen=True)
class Both(Suite):
    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {"pgd": PGD(steps=2, loss="margin"), "square": Square(steps=300)}


def test_what_falls_to_scores_is_not_counted(digits: tuple[Tensor, Tensor]) -> None:
    verdict = rbl.evaluate(MASKED["black and white"](rbl.load_model("zoo:mnist/none")), *digits, Both(), LINF)
    assert 0 < flagged(verdict) == verdict.robust.sum() < 16


@pytest.mark.parametrize("name", ["torchattacks:PGD", "foolbox:LinfPGD", "foolbox:LinfDeepFoolAttack"])
def test_other_peoples_attacks_are_watched_too(name: str, digits: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip(name.partition(":")[0])
    x, y = digits[0][:4], digits[1][:4]
    attack = find_attack(name, {"steps": 2})
    masked = rbl.evaluate(MASKED["black and white"](rbl.load_model("zoo:mnist/none")), x, y, attack, LINF)
    assert flagged(masked) == masked.robust.sum() == 4
    assert not flagged(rbl.evaluate(rbl.load_model("zoo:mnist/none"), x, y, attack, LINF))


def test_what_gradients_lead_is_given_up_as_before(
    digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network that was trained for the ball no image goes to Square."""

    def forbidden(*given: object) -> Tensor:
        raise AssertionError("these have gradients")

    monkeypatch.setattr(Best, "_unled", forbidden)
    verdict = rbl.evaluate(rbl.load_model("zoo:mnist/adversarial_training"), *digits, Best(effort=0.35), LINF)
    abandoned = verdict.robust & (verdict.forwards == 151)
    assert abandoned.sum() > 10 and not verdict.flags
