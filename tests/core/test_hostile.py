"""Attacks that reach beyond their oracle, and models that change while they are asked: no number, or the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.snapshot import Snapshot
from robustbench_local.storage.checkpoints import weights_digest

COUNT = 12
X = Draws(5, torch.arange(COUNT)).uniform(1, 8, 8)


class Net(nn.Module):
    """Batch normalisation, in evaluation mode unless it is stubborn, before a linear layer; and weights of its own."""

    seen: Tensor

    def __init__(self, stubborn: bool = False) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(1), nn.Linear(64, 4)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)
        self.bare = torch.linspace(-1, 1, 4)
        self.stubborn = stubborn
        with torch.no_grad():
            self.layer.weight.copy_(torch.sin(torch.arange(256.0)).view(4, 64))

    def train(self, mode: bool = True) -> Net:
        super().train(mode or self.stubborn)
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.stubborn:
            self.seen += 1
        out: Tensor = self.layer(self.norm(x).flatten(1)) + self.bare
        return out


MODEL = Net().eval()
Y = MODEL(X).argmax(1)


def found(model: nn.Module) -> str:
    return f"{weights_digest(model)} {MODEL(X).double().sum().item()} {[*vars(model)]} {model.training}"


@dataclass(frozen=True)
class Climbs(Attack):
    """Knows the model from somewhere, and does something to it before it attacks in earnest."""

    access: ClassVar[Access] = Access.GRADIENTS

    does: Callable[[Net], object] = lambda model: None
    model: nn.Module = MODEL

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        with torch.no_grad():
            self.does(self.model)  # type: ignore[arg-type]
        return FGSM()(oracle, x, y, threat, draws)


def other_forward(model: Net) -> None:
    model.forward = lambda x: torch.zeros(len(x), 4) + x.mean()  # type: ignore[method-assign]


def other_class(model: Net) -> None:
    model.__class__ = type("Other", (Net,), {"forward": lambda self, x: -Net.forward(self, x)})


def other_method(model: Net) -> None:
    Net.forward = lambda self, x: x.flatten(1)[:, :4]  # type: ignore[method-assign]


DEEDS: dict[str, Callable[[Net], object]] = {
    "layer.weight": lambda model: model.layer.weight.zero_(),
    "layer.bias": lambda model: model.layer.bias.data.add_(1),
    "layer.weight ": lambda model: setattr(model.layer.weight, "data", torch.zeros(4, 64)),
    "layer.weight  ": lambda model: setattr(model.layer, "weight", nn.Parameter(torch.ones(4, 64))),
    "norm.running_mean": lambda model: model.norm.running_mean.fill_(0.3),  # type: ignore[union-attr]
    "seen": lambda model: model.seen.add_(1),
    "bare": lambda model: model.bare.neg_(),
    "bare ": lambda model: setattr(model, "bare", torch.zeros(4)),
    "layer": lambda model: setattr(model, "layer", nn.Linear(64, 4)),
    "extra": lambda model: model.add_module("extra", nn.ReLU()),
    "norm.training": lambda model: model.norm.train(),
    "layer.weight   ": lambda model: model.layer.weight.requires_grad_(),
    "forward": other_forward,
    "forward_hooks": lambda model: model.register_forward_hook(lambda *given: -given[2]),
    "layer.forward_pre_hooks": lambda model: model.layer.register_forward_pre_hook(lambda _, x: (0 * x[0],)),
    "all modules.global_forward_hooks": lambda model: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "Net.forward": other_method,
    "the class of the model": other_class,
}


@pytest.mark.parametrize("deed", DEEDS)
def test_an_attack_that_changes_the_model_has_no_verdict_and_the_model_is_what_it_was(deed: str) -> None:
    before, right = found(MODEL), evaluate(MODEL, X, Y, PGD(), "linf:0.1")
    with pytest.raises(AccessError, match=f"Climbs changed the model .*{deed.strip()}.* again what it was"):
        evaluate(MODEL, X, Y, Climbs(DEEDS[deed]), "linf:0.1")
    assert found(MODEL) == before
    again = evaluate(MODEL, X, Y, PGD(), "linf:0.1")
    assert torch.equal(again.x_adv, right.x_adv) and torch.equal(again.robust, right.robust) and again.flags == ()


def test_a_model_is_what_it_was_after_an_attack_that_died() -> None:
    def dies(model: Net) -> None:
        model.layer.weight.zero_()
        raise ValueError("enough")

    before = found(MODEL)
    with pytest.raises(ValueError, match="enough"):
        evaluate(MODEL, X, Y, Climbs(dies), "linf:0.1")
    assert found(MODEL) == before


def test_what_a_model_does_to_itself_is_told_from_what_is_done_to_it() -> None:
    """Batch statistics that run on, and a count: the model's own doing, flagged where answers move, and undone."""
    model = Net(stubborn=True).eval()
    before = weights_digest(model)
    first, second = (evaluate(model, X, Y, FGSM(), "linf:0.1") for _ in "ab")
    assert weights_digest(model) == before and int(model.seen) == 0
    assert torch.equal(first.x_adv, second.x_adv) and torch.equal(first.clean_scores, second.clean_scores)
    with pytest.raises(AccessError, match=r"changed the model \(layer.bias\)"):
        evaluate(model, X, Y, Climbs(DEEDS["layer.bias"], model), "linf:0.1")
    assert weights_digest(model) == before


class Learns(nn.Module):
    """Counts its questions in a buffer, and from some number on answers otherwise."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        bright = x.flatten(1).mean(1, keepdim=True) - 0.01 * (self.count > 500)
        return torch.cat([bright, 0.5 - bright], 1)


def test_a_model_that_learns_from_questions_is_flagged_and_starts_every_verdict_as_it_was() -> None:
    model = Learns()
    y = torch.zeros(COUNT, dtype=torch.int64)
    verdicts = [evaluate(model, X, y, PGD(steps=60), "linf:0.001") for _ in "ab"]
    assert [verdict.flags for verdict in verdicts] == [("changed",)] * 2
    assert torch.equal(verdicts[0].x_adv, verdicts[1].x_adv)
    assert model.count.tolist() == [0]


@dataclass(frozen=True)
class Reaches(Attack):
    """Does something to its oracle, then hands in what it was given, or what it got."""

    access: ClassVar[Access] = Access.NONE

    does: Callable[[Oracle, Tensor, Tensor, ThreatModel], Any] = lambda *_: None

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        got = self.does(oracle, x, y, threat)
        return got if isinstance(got, Tensor) else x


class ReachesLabels(Reaches):
    access: ClassVar[Access] = Access.LABELS


def sets(name: str, value: object) -> Callable[..., Any]:
    return lambda oracle, *_: setattr(oracle, name, value)


def gradients(oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    return oracle.grad(x, y, lambda logits, _: logits[:, 0])[1]


@pytest.mark.parametrize("name", ["access", "_access", "threat", "_x", "_ledger", "eot", "broken"])
def test_nothing_of_an_oracle_can_be_set(name: str) -> None:
    with pytest.raises((AccessError, AttributeError), match=name):
        evaluate(MODEL, X, Y, Reaches(sets(name, Access.GRADIENTS)), "linf:0.1")


@pytest.mark.parametrize("kind", [Reaches, ReachesLabels])
def test_a_narrowed_oracle_is_never_wider(kind: type[Reaches]) -> None:
    for asked in (gradients, lambda oracle, *rest: gradients(oracle.narrowed(Access.GRADIENTS), *rest)):
        with pytest.raises(AccessError, match=f"granted {kind.access.name} and asked for gradients"):
            evaluate(MODEL, X, Y, kind(asked), "linf:0.1")


def test_no_attribute_of_an_oracle_is_the_model() -> None:
    def looks(oracle: Oracle, *_: object) -> None:
        todo, seen = [*vars(oracle).values()], set()
        while todo:
            each = todo.pop()
            assert not isinstance(each, nn.Module)
            if id(each) not in seen and hasattr(each, "__dict__"):
                seen.add(id(each))
                todo += vars(each).values()

    evaluate(MODEL, X, Y, Reaches(looks), "linf:0.1")


def asks_beside_the_meter(oracle: Oracle, x: Tensor, *_: object) -> Tensor:
    for _step in range(3):
        oracle._answer(x, None)
    return x


def turns_the_meter_back(oracle: Oracle, x: Tensor, *_: object) -> Tensor:
    for _step in range(3):
        oracle.labels(x)
    oracle._ledger.forwards.zero_()
    return x


@pytest.mark.parametrize("does", [asks_beside_the_meter, turns_the_meter_back])
def test_what_is_not_on_the_meter_has_no_verdict(does: Callable[..., Any]) -> None:
    with pytest.raises(AccessError, match="answered on 36 images that are not on its meter"):
        evaluate(MODEL, X, Y, ReachesLabels(does), "linf:0.1")


def test_a_budget_cannot_be_raised() -> None:
    def raises(oracle: Oracle, x: Tensor, *_: object) -> None:
        oracle._ledger.budget = None
        oracle.labels(x), oracle.labels(x)

    with pytest.raises(AccessError, match="had 2 forward passes on one image, and the budget is 1"):
        evaluate(MODEL, X, Y, ReachesLabels(raises), "linf:0.1", budget=1)


def everything_it_was_given(oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    object.__setattr__(threat, "eps", 9.0)
    object.__setattr__(oracle.threat, "eps", 9.0)
    for tensor in (x, y, oracle._x, oracle._y, oracle._ledger.broken, oracle._ledger.x_adv, oracle.forwards):
        tensor.zero_()
    return torch.ones_like(x)


RETURNED: dict[str, Callable[..., Any]] = {
    "everything it was given": everything_it_was_given,
    "the oracle's images": lambda oracle, *_: oracle._x,
    "the oracle's memory": lambda oracle, *_: oracle._ledger.x_adv,
    "a view of its own": lambda oracle, x, *_: x[:].requires_grad_(),
}


@pytest.mark.parametrize("does", RETURNED)
def test_what_an_attack_writes_reaches_neither_the_judge_nor_the_user(does: str) -> None:
    x, y = X.clone(), Y.clone()
    threat = ThreatModel.parse("linf:0.1")
    verdict = evaluate(MODEL, x, y, Reaches(RETURNED[does]), threat)
    assert torch.equal(x, X) and torch.equal(y, Y) and threat.eps == 0.1
    assert verdict.clean.all() and verdict.robust.all()
    outside = (f"outside_ball:{COUNT}",) if does == "everything it was given" else ()
    assert verdict.flags == outside
    assert torch.equal(verdict.labels, Y) and not verdict.forwards.any()


def test_a_meter_that_is_read_is_a_copy() -> None:
    def reads(oracle: Oracle, x: Tensor, *_: object) -> None:
        oracle.labels(x)
        for tensor in (oracle.forwards, oracle.backwards, oracle.broken, oracle.remembered, oracle.done):
            tensor.zero_()
        assert bool((oracle.forwards == 1).all())

    assert bool((evaluate(MODEL, X, Y, ReachesLabels(reads), "linf:0.1").forwards == 1).all())


def test_nan_among_the_weights_is_no_change() -> None:
    model = Net()
    with torch.no_grad():
        model.layer.bias[0] = torch.nan
    before = Snapshot(model)
    assert before.changed() == set()
    with torch.no_grad():
        model.layer.bias[1] = torch.nan
    assert before.changed() == {"layer.bias"}
    before.restore()
    assert model.layer.bias.isnan().tolist() == [True, False, False, False]
