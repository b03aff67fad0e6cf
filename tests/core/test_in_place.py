"""Models that write into what they are given: judged as if they made a copy first, and nobody else's image moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.audit import consistency
from robustbench_local.audit.finding import Status
from robustbench_local.audit.subject import Subject
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, call, through
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.architectures import normalised
from robustbench_local.models.load import load_model

Write = Callable[[Tensor], Tensor]


def zeroed_slice(x: Tensor) -> Tensor:
    x[:, 0, :3] = 0
    return x


def out_argument(x: Tensor) -> Tensor:
    return torch.clamp(x, 0.1, 0.9, out=x) if not x.requires_grad else x.clamp_(0.1, 0.9)


def under_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.round_()
    return x


def through_a_view(x: Tensor) -> Tensor:
    (x.view(len(x), -1)[:, :40] if x.shape[1] == 1 else x.diagonal(dim1=2, dim2=3)).mul_(0.5)
    return x


def by_data(x: Tensor) -> Tensor:
    x.data.round_()
    return x


def by_numpy(x: Tensor) -> Tensor:
    x.detach().cpu().numpy()[:] **= 2
    return x


WRITES: dict[str, Write] = {
    "clamp_": lambda x: x.clamp_(0.2, 0.8),
    "mul_ sub_": lambda x: x.mul_(2).sub_(1),
    "relu": lambda x: nn.functional.relu(x.sub_(0.3), inplace=True),
    "slice": zeroed_slice,
    "out": out_argument,
    "no_grad": under_no_grad,
    "view": through_a_view,
    "data": by_data,
    "numpy": by_numpy,
}


class Linear(nn.Module):
    """Writes as it is told into what it is given (copies: into a copy), then a linear network."""

    def __init__(self, write: Write, channels: int, copies: bool) -> None:
        super().__init__()
        self.write, self.copies = write, copies
        size = channels * 64
        self.weights = nn.Parameter(torch.sin(torch.arange(size * 5.0)).view(size, 5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.write(x.clone() if self.copies else x).reshape(len(x), -1) @ self.weights
        return out


class Hooked(nn.Module):
    """The same as a hook before the network."""

    def __init__(self, write: Write, channels: int, copies: bool) -> None:
        super().__init__()
        self.net = Linear(lambda x: x, channels, copies)
        self.register_forward_pre_hook(lambda _, given: (write(given[0].clone() if copies else given[0]),))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Detector(Defended):
    """A network that writes, twice, beside a score that rejects what is bright."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = (call(self.net, x, draws) + call(self.net, x, draws)) / 2
        return torch.cat([logits, logits.amax(1, keepdim=True) + x.mean((1, 2, 3))[:, None] - 0.6], 1)


class Step(Preprocess):
    """A step that writes, and whose surrogate does."""

    def __init__(self, write: Write, copies: bool) -> None:
        super().__init__()
        self.write, self.copies = write, copies

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.write(x.clone() if self.copies else x)

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x.clone() if self.copies else x).mul_(0.5)


class Noisy(nn.Module):
    """Draws from the global generator and says nothing of it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out + torch.rand(len(x), 1)


Build = Callable[[Write, int, bool], nn.Module]
SHAPES: dict[str, Build] = {
    "bare": Linear,
    "hook": Hooked,
    "detector": lambda *how: Detector(Linear(*how)),
    "steps": lambda write, channels, copies: Deployed(Linear(write, channels, copies), [Step(write, copies)]),
    "stranger": lambda *how: Noisy(Linear(*how)),
}


def images(channels: int, count: int = 12) -> tuple[Tensor, Tensor]:
    x = Draws(3, torch.arange(count)).uniform(channels, 8, 8)
    return x, torch.arange(count) % 5


def same(one: Verdict, other: Verdict) -> None:
    for field in fields(Verdict):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert not isinstance(a, Tensor) or torch.equal(a, b), field.name


CASES = [("bare", write) for write in WRITES] + [
    (shape, write) for shape in SHAPES if shape != "bare" for write in ("mul_ sub_", "no_grad", "data")
]
ATTACKS = PGD(steps=2), Square(steps=6), FGSM()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shape", "write"), CASES)
def test_verdicts_are_those_of_the_model_that_copies_first(shape: str, channels: int, write: str) -> None:
    x, y = images(channels)
    for attack in ATTACKS:
        given = x.clone(), y.clone()
        more: dict[str, Any] = {"attack_under": "fog:3"} if isinstance(attack, FGSM) else {}
        verdicts = [
            evaluate(SHAPES[shape](WRITES[write], channels, not writes), *given, attack, "linf:0.1", draws=2, **more)
            for writes in (False, True)
        ]
        same(*verdicts)
        assert torch.equal(given[0], x) and torch.equal(given[1], y)
        flags = [set(verdict.flags) for verdict in verdicts]
        assert flags[1] - flags[0] == {"writes_input"} or (shape in ("steps", "detector") and flags[0] == flags[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_that_writes_only_sometimes_is_named_too(channels: int) -> None:
    def sometimes(x: Tensor) -> Tensor:
        return x.round_() if bool((x == 1).any()) else x  # no clean image is so bright

    x, y = images(channels)
    verdict = evaluate(Linear(sometimes, channels, False), x, y, "square", "linf:0.1", steps=30)
    same(verdict, evaluate(Linear(sometimes, channels, True), x, y, "square", "linf:0.1", steps=30))
    assert "writes_input" in verdict.flags


def test_a_network_on_digits_that_scales_in_place_is_as_good_as_its_twin() -> None:
    """The case it was found by: one channel, where the layout for convolutions is a view of the judge's own images."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = load_model("zoo:mnist/none")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x.mul_(2).sub_(1).add_(1).div_(2).clamp_(0, 1))
            return out

    data = open_data("mnist", n=40, source="bundled")
    x, y = data[:], data.labels
    given = x.clone()
    verdict = evaluate(InPlace(), given, y, "square", "linf:0.1", steps=30)
    twin = evaluate(load_model("zoo:mnist/none"), x, y, "square", "linf:0.1", steps=30)
    assert torch.equal(given, x)
    assert verdict.clean_accuracy == twin.clean_accuracy == 1
    assert abs(verdict.robust_accuracy - twin.robust_accuracy) <= 0.05  # 2 x - 1 + 1 rounds
    assert verdict.flags == ("writes_input",)


class Kept(nn.Module):
    """Answers from a buffer of its own, the same tensor every time."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.sin(torch.arange(640.0)).view(64, 10)
        self.answer = torch.zeros(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.answer.resize_(len(x), 10)
        torch.mm(x.flatten(1), self.weights, out=self.answer)
        self.answer += 3 * torch.rand(len(x), 1) * torch.arange(10)
        return self.answer


def test_answers_that_a_model_overwrites_later_are_kept_as_they_were_given() -> None:
    x, y = images(1)
    verdict = evaluate(Kept(), x, torch.full_like(y, 9), "noise", "linf:0.1", draws=8)
    assert verdict.bits is not None
    assert bool((verdict.bits != verdict.bits[:, :1]).any()), "eight fresh draws, and not one draw eight times"


class Grown(Preprocess):
    """In value the image itself, the very tensor; in gradient its double."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return 2 * x


def test_a_step_that_gives_back_what_it_was_given_adds_no_gradient_to_its_surrogates() -> None:
    leaf = torch.rand(2, 1, 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(through(Grown(), leaf, None).sum(), leaf)
    assert torch.equal(grad, torch.full_like(leaf, 2))


@dataclass(frozen=True)
class Asks(Attack):
    """Asks in every way there is, and looks at its images afterwards."""

    access: ClassVar[Access] = Access.GRADIENTS

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        asked = x.clone()
        with torch.enable_grad():
            leaf = asked.clone().requires_grad_()
            slope = torch.autograd.grad(oracle.as_module()(leaf)[:, 0].sum(), leaf)[0]
        crowd = torch.stack([asked, asked], 1)
        grad = oracle.grad(asked, y, lambda logits, _: logits[:, 0])[1]
        jacobian = oracle.jacobian(asked)[0]
        oracle.logits(crowd), oracle.labels(asked)
        oracle.submit(asked)
        for seen in (asked, leaf.detach(), crowd[:, 0], crowd[:, 1], oracle.best(x)):
            assert torch.equal(seen, x)
        assert torch.equal(grad, jacobian[:, 0]) and torch.equal(grad, slope)
        return asked


@pytest.mark.parametrize("channels", [1, 3])
def test_no_way_of_asking_lets_a_model_write_into_the_attackers_images(channels: int) -> None:
    x, _ = images(channels)
    model = normalised(Linear(WRITES["mul_ sub_"], channels, False), (0.0,) * channels, (1.0,) * channels)
    for write in WRITES.values():
        for each in (Linear(write, channels, False), model):
            y = each(x.clone()).argmax(1)
            assert evaluate(each, x, y, Asks(), "linf:0.1").clean.all()


def test_an_audit_tells_a_model_that_writes_wherever_it_does() -> None:
    x, y = images(1)
    writers = Linear(WRITES["clamp_"], 1, False), Linear(by_data, 1, False)
    for model in (*writers, Deployed(writers[0]), Linear(WRITES["clamp_"], 1, True)):
        found = consistency.in_place(Subject(model, x, y, ThreatModel.parse("linf:0.1")))
        copies = isinstance(model, Linear) and model.copies
        assert found.status is (Status.SOUND if copies else Status.BROKEN)
